"""Run by the simulators' Python: the program `pgest`."""

from pgest.commands import program

if __name__ == "__main__":
    program.main()
