"""The command as a whole: exit codes, sentences instead of tracebacks, and nothing heavy loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

import landscape
from landscape.cli import main

NO_FILE = "Error: There is no file no.h5; check the path (a run writes landscape.h5).\n"
_ENTRY = "import sys; from landscape.cli import main; sys.argv[0] = 'landscape'; main()"


def call(*arguments: object, code: str = _ENTRY) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_names_the_commands(runner: CliRunner) -> None:
    result = runner.invoke(main, ["--help"])
    assert result.exit_code == 0
    for name in ("connect", "demo", "describe", "plot", "repair", "show"):
        assert name in result.stdout


@pytest.mark.parametrize("command", ["connect", "demo", "describe", "plot", "repair", "show"])
def test_each_help_has_an_example(runner: CliRunner, command: str) -> None:
    result = runner.invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert "Example:\n" in result.stdout
    assert f"landscape {command} " in result.stdout


def test_version(runner: CliRunner) -> None:
    assert runner.invoke(main, ["--version"]).stdout == f"landscape, version {landscape.__version__}\n"


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'pytorch_lightning', 'lightning', 'matplotlib', 'numpy', 'h5py', 'xarray', 'pandas', 'rich'}"
    code = (
        "import sys\nfrom landscape.cli import main\n"
        f"try:\n    main(['--help'])\nfinally:\n    print(sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    )
    done = call(code=code)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"


def test_looking_at_runs_loads_no_torch(run_file: Path, tmp_path: Path) -> None:
    commands = [["show", str(run_file)], ["repair", str(run_file)], ["plot", str(run_file), "--out", "a.png"]]
    code = (
        "import os, sys\nfrom landscape.cli import main\n"
        f"os.chdir({str(tmp_path)!r})\n"
        f"for command in {commands!r}:\n"
        "    try:\n        main(command)\n"
        "    except SystemExit as left:\n"
        "        print(left.code, 'torch' in sys.modules, 'lightning' in sys.modules, file=sys.stderr)"
    )
    done = call(code=code)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.endswith("False")] == ["0 False False"] * 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["show", "no.h5"], 1),
        (["plot", "no.h5", "--out", "a.png"], 1),
        (["show"], 2),
        (["fly"], 2),
        (["show", "no.h5", "--colour"], 2),
    ],
)
def test_exit_codes_without_traceback(runner: CliRunner, arguments: list[str], code: int) -> None:
    result = runner.invoke(main, arguments)
    assert result.exit_code == code
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert "Error: " in result.stderr
    if code == 1:
        assert result.stderr == NO_FILE


def test_exit_code_and_sentence_of_a_process() -> None:
    done = call("show", "no.h5")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", NO_FILE)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_damaged_files_are_one_sentence(runner: CliRunner, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.h5"
    path.write_bytes(content)
    result = runner.invoke(main, ["show", str(path)])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {path} is ")
    assert result.stderr.count("\n") == 1


def test_ctrl_c_ends_with_130(runner: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(out: Path, quick: bool) -> None:
        raise KeyboardInterrupt

    study = types.SimpleNamespace(main=interrupted)
    monkeypatch.setitem(sys.modules, "landscape.studies.digits_demo", study)  # type: ignore[arg-type]
    result = runner.invoke(main, ["demo", "--out", str(tmp_path)])
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


def test_a_real_ctrl_c_leaves_no_traceback() -> None:
    code = (
        "import signal, sys, time, types\nfrom landscape.cli import main\n"
        # A shell's background job is started with the signal ignored, and its children are too.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def wait(out, quick):\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "sys.modules['landscape.studies.digits_demo'] = types.SimpleNamespace(main=wait)\nmain(['demo'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGINT)
        _, stderr = process.communicate()
    assert process.returncode == 130
    assert stderr == "Interrupted.\n"


def test_a_closed_pipe_leaves_no_traceback(run_file: Path) -> None:
    command = [sys.executable, "-c", _ENTRY, "show", "--json", str(run_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        stderr = process.stderr.read()
    assert "Traceback" not in stderr
