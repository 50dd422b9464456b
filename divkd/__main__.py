"""``python -m divkd``, the command where its script is not on the path."""

from divkd.cli.main import main

if __name__ == "__main__":
    main()
