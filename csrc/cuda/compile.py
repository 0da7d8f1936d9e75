"""Runs a compiler; fails where ptxas reports that it gave up asynchronous products (C75xx).

CMake puts it before the command line of nvcc. ptxas calls these messages information, so no option
of nvcc makes errors of them, and a kernel that it serialised is right, but some times slower.
"""

import re
import subprocess
import sys

done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
sys.stdout.write(done.stdout)
if done.returncode == 0 and (found := re.search(r"\(C75\d\d\).*", done.stdout)):
    sys.exit(f"error: {found[0]}")
sys.exit(done.returncode)
