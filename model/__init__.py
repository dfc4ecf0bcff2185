"""The training side: layers, data, objective and the entrypoint. Imported as `vdsgen.model`."""

if __name__ != "vdsgen.model":
    raise ImportError(
        "import this package as `vdsgen.model`; under the bare name `model` every class in it "
        "would exist twice"
    )
