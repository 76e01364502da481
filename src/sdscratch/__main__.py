"""`python -m sdscratch`."""

from sdscratch.cli.app import main

if __name__ == "__main__":
    main()
