"""`python -m sepcbench` is `sepcbench`."""

from sepcbench.cli.app import main

if __name__ == "__main__":
    main()
