"""The kernel: VS Code finds exactly one, and where there are two environments it goes on in the workshop's.

What VS Code offers was measured with VS Code 1.139, its Jupyter and its Python extension, and read in the extension's
source: each environment that is not excluded, and each kernelspec whose name is not Jupyter's own. One alone is chosen;
of two it asks which, whatever the notebook's metadata names.
"""

import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from atlas import course, kernel
from atlas.course import ENVIRONMENTS, KERNEL, KERNEL_TITLE
from made_up import FIRST, SECOND, WORKSHOP, write
from test_devcontainer import BOTH, FOLDER, REPOSITORY, read

EXCLUDED = "jupyter.kernels.excludePythonEnvironments"
TENSORFLOW = ENVIRONMENTS[1]


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """Register the kernel in an empty environment: that environment's folder."""

    def register(tensorflow: str = "") -> Path:
        monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
        kernel.register(tensorflow)
        return tmp_path / "environment"

    return register


# ------------------------------------------------------------------------------------------------ what VS Code finds


def settings(container: str = "") -> dict:
    """What holds in the folder: its own settings win over those that a container brings."""
    brought = read(FOLDER / container)["customizations"]["vscode"]["settings"] if container else {}
    return brought | read(REPOSITORY / ".vscode" / "settings.json")


def offered(pythons: list[str], kernels: dict[str, Path], excluded: list[str]) -> list[str]:
    """What VS Code lets one choose from: `pythons` are on the machine, `kernels` lie in the environments of some."""
    hidden = {os.path.expanduser(path) for path in excluded}  # a path as it is or from ~, and no pattern
    environments = [
        path for path in pythons if path not in hidden and os.path.dirname(os.path.dirname(path)) not in hidden
    ]
    specs = {}
    for python, environment in kernels.items():
        assert python in pythons
        for file in environment.glob("share/jupyter/kernels/*/kernel.json"):
            spec = json.loads(file.read_text())
            usual = re.fullmatch(r"python\d*.?\d*", file.parent.name) and not spec.get("env")
            if not usual and spec["display_name"] not in ("Python 3", "Python 3 (ipykernel)"):
                specs[python, *spec["argv"][1:]] = file.parent.name  # two that start the same count as one
    return [*environments, *specs.values()]


def kernelspec(environment: Path, name: str, *more: str) -> None:
    argv = ["python", "-m", "ipykernel_launcher", *more]
    write(
        environment / "share/jupyter/kernels" / name / "kernel.json", json.dumps({"argv": argv, "display_name": name})
    )


def test_the_computation_agrees_with_what_was_measured(tmp_path):
    system, own = ["/usr/bin/python3", "/bin/python3"], "/opt/venv/bin/python"
    kernelspec(tmp_path / "one", "openmlatlas")
    kernelspec(tmp_path / "same", "openmlatlas")
    kernelspec(tmp_path / "same", "second")
    kernelspec(tmp_path / "other", "openmlatlas")
    kernelspec(tmp_path / "other", "second", "--elsewhere")
    kernelspec(tmp_path / "usual", "python3")
    for environment, excluded, found in [
        ("one", system, [own, "openmlatlas"]),
        ("one", [*system, own], ["openmlatlas"]),
        ("usual", system, [own]),
        ("same", [*system, own], ["either"]),
        ("other", [*system, own], ["openmlatlas", "second"]),
    ]:
        seen = offered([*system, own], {own: tmp_path / environment}, excluded)
        assert len(seen) == len(found) and (set(seen) == set(found) or found == ["either"]), environment


@pytest.mark.parametrize("container", BOTH)
def test_in_a_container_a_notebook_opens_without_a_question(registered, container):
    own, second = "/opt/venv/bin/python", "/opt/venv-tensorflow/bin/python"
    pythons = [own, "/usr/bin/python3", "/usr/bin/python3.11", "/bin/python3", "/bin/python3.11"]
    cuda = "cuda" in container
    environment = registered(second if cuda else "")
    found = offered([*pythons, *[second] * cuda], {own: environment}, settings(container)[EXCLUDED])
    assert found == [own] == [settings(container)["python.defaultInterpreterPath"]]


@pytest.mark.parametrize(
    "system",
    [
        ["/usr/bin/python3", "/usr/bin/python3.11", "/bin/python3", "/bin/python3.11"],  # Debian 12
        ["/usr/bin/python3", "/usr/bin/python3.12", "/usr/bin/python3.11", "/bin/python3"],  # Ubuntu 24.04, deadsnakes
        ["/usr/bin/python3", "/opt/homebrew/bin/python3", "/opt/homebrew/bin/python3.11"],  # macOS, Homebrew
    ],
    ids=["debian", "ubuntu", "macos"],
)
def test_on_a_machine_of_ones_own_it_opens_without_a_question_too(registered, system):
    own = "/home/vscode/course/.venv/bin/python"
    assert offered([*system, own], {own: registered()}, settings()[EXCLUDED]) == [own]


@pytest.mark.parametrize("container", BOTH)
def test_no_setting_of_a_container_is_overruled_by_the_folders(container):
    brought = read(FOLDER / container)["customizations"]["vscode"]["settings"]
    assert not set(brought) & set(read(REPOSITORY / ".vscode" / "settings.json"))


def test_the_folders_settings_begin_a_terminal_beside_the_open_file_and_open_the_theory_rendered():
    folder = settings()
    assert folder["terminal.integrated.cwd"] == "${fileDirname}"
    for system in ("linux", "osx"):
        # at the end: in a container, .venv is the host's
        assert folder[f"terminal.integrated.env.{system}"] == {"PATH": "${env:PATH}:${workspaceFolder}/.venv/bin"}
    assert folder["workbench.editorAssociations"] == {"**/README.md": "vscode.markdown.preview.editor"}


# ------------------------------------------------------------------------------------------------ what Jupyter finds


def test_jupyter_offers_the_one_kernel_even_where_others_are_installed(registered, tmp_path):
    environment = registered()
    kernelspec(tmp_path / "others", "conda")
    kernelspec(environment, "another")
    registered()  # another is gone
    question = (
        "from jupyter_client.kernelspecapp import ListKernelSpecs\n"
        "app = ListKernelSpecs()\n"
        "app.initialize([])\n"
        "print({name: each['spec']['display_name'] for name, each in app.kernel_spec_manager.get_all_specs().items()})"
    )
    places = {"JUPYTER_PATH": f"{tmp_path / 'others'}{os.pathsep}{environment / 'share' / 'jupyter'}"}
    places |= {"JUPYTER_CONFIG_PATH": str(environment / "etc" / "jupyter")}
    found = subprocess.run([sys.executable, "-c", question], env=os.environ | places, capture_output=True, text=True)
    assert found.stdout.strip() == str({KERNEL: KERNEL_TITLE}), found.stderr


def test_jupyterlab_opens_markdown_rendered_and_asks_for_nothing_over_the_network(registered):
    overrides = json.loads((registered() / "share/jupyter/lab/settings/overrides.json").read_text())
    viewers = overrides["@jupyterlab/docmanager-extension:plugin"]["defaultViewers"]
    assert viewers == {"markdown": "Markdown Preview"}
    quiet = overrides["@jupyterlab/apputils-extension:notification"]
    assert quiet == {"fetchNews": "false", "checkForUpdates": False}


def test_every_notebook_names_the_one_kernel():
    notebooks = [*REPOSITORY.glob("workshops/**/*.ipynb"), *REPOSITORY.glob("solutions/**/*.ipynb")]
    assert {json.loads(file.read_text())["metadata"]["kernelspec"]["name"] for file in notebooks} == {KERNEL}


# ------------------------------------------------------------------------------------------------ two environments


def test_the_folder_of_a_notebook_tells_its_environment(small_course):
    write(small_course / "workshops" / SECOND / "workshop.toml", f'kernel = "{TENSORFLOW}"\n' + WORKSHOP)
    second = small_course / "workshops" / SECOND
    assert kernel.environment(second) == TENSORFLOW
    assert kernel.environment(second / "a copy of mine") == TENSORFLOW
    assert kernel.environment(small_course / "solutions" / SECOND) == TENSORFLOW
    for torch in (small_course / "workshops" / FIRST, small_course / "solutions" / FIRST, small_course, Path("/")):
        assert kernel.environment(torch) == ENVIRONMENTS[0]
    write(second / "workshop.toml", "not TOML")
    assert kernel.environment(second) == ENVIRONMENTS[0]


@pytest.fixture
def two_environments(tmp_path):
    """The Pythons of two environments with the packages of this one; the kernel is registered in the first."""
    pythons = []
    for name in ("venv", "venv-tensorflow"):
        venv.create(tmp_path / name, symlinks=True)
        packages = next((tmp_path / name).glob("lib/python*/site-packages"))
        here = [path for path in sys.path if path and Path(path).is_dir()]
        (packages / "here.pth").write_text("\n".join([str(Path(kernel.__file__).parents[1]), *here]) + "\n")
        pythons.append(str(tmp_path / name / "bin" / "python"))
    subprocess.run([pythons[0], "-m", "atlas.kernel", pythons[1]], check=True, capture_output=True)
    return pythons


@pytest.mark.parametrize("named", ["", TENSORFLOW])
def test_a_kernel_goes_on_in_the_environment_that_the_workshop_names(small_course, two_environments, named):
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import KernelManager

    folder = small_course / "workshops" / FIRST
    write(folder / "workshop.toml", (f'kernel = "{named}"\n' if named else "") + WORKSHOP)
    spec = json.loads(
        next(Path(two_environments[0]).parents[1].glob("share/jupyter/kernels/*/kernel.json")).read_text()
    )
    manager = KernelManager()
    manager._kernel_spec = KernelSpec(argv=spec["argv"], display_name="", language="python")
    manager.start_kernel(cwd=str(folder))
    pid = manager.provisioner.pid
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        said = []
        code = "import os, shutil, sys; print(sys.executable, shutil.which('python'), os.getpid())"
        client.execute_interactive(code, output_hook=lambda message: said.append(message["content"].get("text", "")))
        python = two_environments[1 if named else 0]
        executable, found, process = "".join(said).split()
        assert executable == python and int(process) == pid, "the same process, so that interrupts reach it"
        assert found == python or not named
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_without_tensorflows_environment_a_kernel_stays_where_it_is(small_course, monkeypatch):
    write(small_course / "workshops" / FIRST / "workshop.toml", f'kernel = "{TENSORFLOW}"\n' + WORKSHOP)
    monkeypatch.chdir(small_course / "workshops" / FIRST)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("there is nothing to go to"))
    kernel.enter(str(small_course / "no" / "python"))


def test_the_cuda_environment_of_torch_has_tensorflow_for_the_cpu_where_nothing_is_known():
    assert re.search(r"^tensorflow-cpu==", (REPOSITORY / "scripts/locks/cuda.txt").read_text(), re.MULTILINE)


def test_kernel_names_stand_in_one_place():
    for file in (
        "scripts/environment.py",
        "scripts/atlas/doctor.py",
        "scripts/atlas/build.py",
        "scripts/atlas/kernel.py",
    ):
        assert not re.search(rf'"({"|".join([KERNEL, *ENVIRONMENTS])})"', (REPOSITORY / file).read_text()), file
    assert course.Workshop("a/b", "B").kernel == ENVIRONMENTS[0]
