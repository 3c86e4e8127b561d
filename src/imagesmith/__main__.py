"""Run the command line with `python -m imagesmith`."""

from imagesmith.cli.main import main

if __name__ == "__main__":
    main()
