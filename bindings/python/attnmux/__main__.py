# SPDX-License-Identifier: Apache-2.0
"""`python -m attnmux` and the script `attnmux`: the command line tool itself takes over this process."""

import os
import sys


def main() -> None:
    from attnmux._tool import executable

    path = executable()
    sys.stdout.flush()
    os.execv(path, ["attnmux", *sys.argv[1:]])


if __name__ == "__main__":
    main()
