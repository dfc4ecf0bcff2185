"""Starting the runs that a plan describes. Imported as `vdsgen.launch`."""

if __name__ != "vdsgen.launch":
    raise ImportError(
        "import this package as `vdsgen.launch`; under the bare name `launch` every class in it "
        "would exist twice"
    )
