"""`python -m vdsgen`"""

from vdsgen.cli.main import main

main()
