"""Blocking code is made cooperative as gevent does it, plugins included, although what is installed is read but once."""

import subprocess
import sys
from pathlib import Path

from app.testbed import ROOT

PROGRAM = """
from importlib import metadata
read, distributions = metadata.entry_points, metadata.distributions
asked = []
metadata.distributions = lambda **chosen: asked.append(chosen) or distributions(**chosen)
from app.patching import patch
patch()
from gevent import monkey
assert metadata.entry_points is read
assert len(asked) == 1
assert monkey.is_module_patched("socket") and monkey.is_module_patched("time") and monkey.is_module_patched("threading")
"""


def test_everything_is_patched_and_plugins_are_asked(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text("def told(event):\n    print(type(event).__name__)\n")
    (tmp_path / "plugin-1.dist-info").mkdir()
    (tmp_path / "plugin-1.dist-info" / "METADATA").write_text("Name: plugin\nVersion: 1\n")
    (tmp_path / "plugin-1.dist-info" / "entry_points.txt").write_text("[gevent.plugins.monkey.will_patch_all]\nplugin = plugin:told\n")
    program = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(tmp_path)!r}]\n{PROGRAM}"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "GeventWillPatchAllEvent\n", "")
