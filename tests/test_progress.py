"""The progress bar in a notebook without widgets: that of a terminal, and no warning."""

import subprocess
import sys

NOTEBOOK = """
import sys, types
kernel, shell = types.ModuleType("ipykernel.zmqshell"), types.ModuleType("IPython")
class ZMQInteractiveShell: pass
shell.get_ipython = lambda: ZMQInteractiveShell()
sys.modules |= {"ipykernel.zmqshell": kernel, "IPython": shell, "ipywidgets": None}
if sys.argv[1] == "ours":
    from minimrcnn.progress import tqdm
else:
    from tqdm.auto import tqdm
print([k for k in tqdm(range(3), file=sys.stdout)])
"""


def run(which):
    command = [sys.executable, "-W", "always", "-c", NOTEBOOK, which]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_notebook_without_widgets_gets_the_bar_of_a_terminal():
    done = run("ours")
    assert done.returncode == 0, done.stderr
    assert "3/3" in done.stdout and "[0, 1, 2]" in done.stdout and not done.stderr
    assert "TqdmWarning" in run("theirs").stderr, "tqdm.auto does not warn any more: the module is not needed"


def test_a_file_gets_few_bars():
    slow = "import time\nfrom minimrcnn.progress import tqdm\nfor _ in tqdm(range(9)):\n    time.sleep(0.15)"
    done = subprocess.run([sys.executable, "-c", slow], capture_output=True, text=True)
    assert done.returncode == 0 and "9/9" in done.stderr and done.stderr.count("\r") <= 2, done.stderr


def test_there_may_be_no_terminal_at_all():
    silent = (
        "import sys\nsys.stderr = None\nfrom minimrcnn.progress import tqdm\nprint(list(tqdm(range(3), disable=True)))"
    )
    assert subprocess.run([sys.executable, "-c", silent], capture_output=True, text=True).stdout == "[0, 1, 2]\n"
