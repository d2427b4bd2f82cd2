"""`python -m pgest`: the command line where the console script is not on the path."""

from pgest.commands import program

if __name__ == "__main__":
    program.main()
