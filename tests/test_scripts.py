"""Tests of the command line: what each script writes and prints, and how it refuses bad input."""

import dataclasses
import io
import itertools
import json
import math
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast
from unittest import mock

import jax
import numpy as np
import pytest

pytest.importorskip("torch")  # The scripts convert, too.

import torch
from safetensors.numpy import load_file, save_file

from astra_jax import cli
from astra_jax.errors import DivergedError, InputError, StoppedError
from astra_jax.experiments import experiment
from astra_jax.machine import memory
from astra_jax.runs.folder import Run
from astra_jax.training.options import FitOptions
from astra_jax.training.saving import SavePolicy
from tests.commands import SCRIPTS, Result, call

TINY = [
    *("--hidden-dim", 8, "--embedding-dim", 4),
    *("--epochs", 1, "--steps-per-epoch", 2, "--batch-size", 4, "--seq-len", 16),
]
WORDS = "\n".join(first + "ev" + last for first in "abcdefghij" for last in "aeiou")
WARNING = "warning: the text is the project's built-in one, not a published corpus"


def succeed(script: str, *arguments: object) -> str:
    """Runs a script that has nothing to complain about, and returns its standard output."""
    result = call(script, *arguments)
    assert (result.code, result.err) == (0, "")
    return result.out


DATACLASS = "import dataclasses\n@dataclasses.dataclass\nclass Arguments: ...\n"
WATCHED = {
    "while it imports": "raise KeyboardInterrupt",
    "in a callback": """
def interrupt(phase, info):
    gc.callbacks.remove(interrupt)
    signal.raise_signal(signal.SIGINT)

def main(arguments):
    gc.callbacks.append(interrupt)
    gc.collect()
    time.sleep(30)

cli.run(main, Arguments, None)
""",
}


@pytest.mark.parametrize("program", WATCHED.values(), ids=WATCHED.keys())
def test_ctrl_c_ends_a_script_in_a_line(program: str):
    head = "import dataclasses, gc, signal, time\nfrom astra_jax import cli\n"
    head += DATACLASS
    run = [sys.executable, "-c", head + program]
    ended = subprocess.run(run, capture_output=True, text=True, timeout=20)
    assert (ended.stdout, ended.stderr) == ("", "interrupted\n")
    assert ended.returncode in (-signal.SIGINT, cli.EXIT_INTERRUPTED)  # To a shell both are 130.


class Trained(NamedTuple):
    """One tiny model of each study, in every form; only to be read."""

    folder: Path
    text: Path
    words: Path
    pth: Path
    safetensors: Path
    text_result: Result
    words_result: Result


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "words.txt").write_text(WORDS)
    text, words = folder / "text", folder / "words"
    text_result = call("train.py", "--corpus", "builtin", *TINY, "--out", text)
    names = ["--dataset", "names", "--corpus", folder / "words.txt"]
    words_result = call("train.py", *names, *TINY, "--out", words)
    pth, safetensors = folder / "tiny.pth", folder / "tiny.safetensors"
    assert succeed("convert.py", text, pth) == f"Astra-custom: wrote {pth}\n"
    assert succeed("convert.py", text, safetensors) == f"Astra-custom: wrote {safetensors}\n"
    return Trained(folder, text, words, pth, safetensors, text_result, words_result)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Returns every file's bytes, and None for a folder, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_train_writes_a_whole_run_folder(trained: Trained) -> None:
    folder = trained.text
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        "best",
        "checkpoints",
        "config.json",
        "loss.png",
        "metrics.jsonl",
        "samples.txt",
        "vocabulary.json",
    ]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["2"]
    config = json.loads((folder / "config.json").read_text())
    assert config["corpus"]["origin"] == "built-in"
    assert (config["preset"]["name"], config["preset"]["model"]["hidden_dim"]) == ("custom", 8)
    (metrics,) = Run.open(folder).metrics()
    assert (metrics.epoch, metrics.step, metrics.learning_rate) == (1, 2, pytest.approx(3e-3))
    for loss in (metrics.train_loss_nats, metrics.val_loss_nats, metrics.val_estimate_nats):
        assert loss == pytest.approx(math.log(65), abs=0.5)  # Two steps from a uniform guess.
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    header, *sections = (folder / "samples.txt").read_text().split("\n\n## ")
    assert header == "Astra-custom: 1,173 parameters, on built-in play (built-in), 65 classes"
    texts = dict(section.rstrip("\n").split("\n\n", 1) for section in sections)
    assert len(texts) == len(sections) == 6
    assert sum("stateless" in title for title in texts) == 3
    assert all(text.startswith("ROMEO: ") and len(text) == 207 for text in texts.values())


def test_train_tells_its_progress_and_warns_first_and_last(trained: Trained) -> None:
    code, out, err = trained.text_result
    assert code == 0
    first, epoch, done = out.splitlines()
    assert first == (
        "Astra-custom: 1,173 parameters, on built-in play (built-in), 65 classes, into "
        f"{trained.text}"
    )
    assert re.fullmatch(r"epoch   1  train 4\.\d{4}  val .*  lr 3.00e-03  [\d,]+ chars/s", epoch)
    (metrics,) = Run.open(trained.text).metrics()
    assert done == (
        f"done: validation loss {metrics.val_loss_nats:.4f} nats per character, all in "
        f"{trained.text}"
    )
    warnings = err.splitlines()
    assert len(warnings) == 3
    assert re.match(r"note: 1,173 parameters for [\d,]+ training characters, \d+ ", warnings[0])
    assert all(line.startswith(WARNING) for line in warnings[1:])


def test_train_quietly_prints_the_last_line_only(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = call("train.py", "--corpus", "builtin", *TINY, "--out", run, "--quiet")
    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(
        rf"done: validation loss [\d.]+ .*, of the project's built-in text, all in {run}\n",
        result.out,
    )


def test_dry_run_tells_what_would_be_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text(WORDS)
    before = contents(tmp_path)
    names = ["--dataset", "names", "--corpus", "words.txt", "--hidden-dim", 8, "--epochs", 7]
    for arguments in (names, ["--corpus", "builtin", *TINY]):
        result = call("train.py", *arguments, "--dry-run")
        assert result.code == 0
        title, *lines = result.out.splitlines()
        assert title.endswith("-custom, a dry run: nothing is trained, no folder made")
        told = {line[:8].strip(): line[8:] for line in lines}
        assert list(told) == ["model", "data", "train", "corpus", "memory", "time"]
        if arguments is names:
            assert told["model"].startswith("2,863 parameters: vocab_size 15")
            assert "steps_per_epoch 1," in told["train"]
            assert told["corpus"].startswith("words.txt (file): 249 characters, sha256 ")
            assert "7 epochs of 1 step at " in told["time"]
            assert not told["time"].endswith("(1 steps timed on this machine, as busy as it is)")
        else:
            assert "1,173 parameters" in told["model"]
            assert "note: 1,173 parameters for " in result.err
    assert contents(tmp_path) == before


def test_train_on_a_file_takes_its_vocabulary(trained: Trained) -> None:
    run = Run.open(trained.words)
    assert run.vocabulary.tokens == ("<PAD>", ".", *"abcdefghijouv")
    assert run.corpus.path == str(trained.folder / "words.txt")
    assert [metrics.step for metrics in run.metrics()] == [2]


def test_train_on_few_characters_comes_to_its_end(trained: Trained) -> None:
    assert (trained.words_result.code, trained.words_result.err) == (0, "")
    samples = re.split(r"\n## .*\n\n", (trained.words / "samples.txt").read_text())[1:]
    assert [section.count("\n") for section in samples] == [1, 20, 20] * 2
    assert (trained.words / "loss.png").exists()


def test_train_resumes_a_finished_run_to_the_same_end(trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.text, run)
    before = contents(run)
    (run / "samples.txt").unlink()
    result = call("train.py", "--resume", run)
    assert (result.code, len(result.err.splitlines())) == (0, 2)
    after = contents(run)
    assert {name for name in before if before[name] != after[name]} <= {"loss.png"}
    assert result.out.splitlines()[-1].startswith("done: validation loss ")


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (
            KeyboardInterrupt(),
            130,
            ["go on with: python scripts/train.py --resume RUN FLAGS", "interrupted"],
        ),
        (
            StoppedError(signal.SIGTERM, 12),
            143,
            [
                "go on with: python scripts/train.py --resume RUN FLAGS",
                "stopped by SIGTERM after step 12",
            ],
        ),
        (DivergedError("the loss is nan"), 3, ["error: the loss is nan"]),
    ],
)
def test_train_that_ends_early_has_an_exit_code_of_its_own(
    error: BaseException,
    code: int,
    lines: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(experiment, "fit", mock.Mock(side_effect=error))
    (tmp_path / "words.txt").write_text(WORDS)
    run = tmp_path / "run"
    names = ["--dataset", "names", "--corpus", tmp_path / "words.txt"]
    flags = "--checkpoint-every 5 --keep 3 --devices 1 --backend scan --remat --debug-nans"
    flags += " --no-compile-cache --tensorboard"
    result = call("train.py", *names, "--out", run, *flags.split())
    assert cast(Any, experiment.fit).call_args.args[3] == FitOptions(
        saving=SavePolicy(checkpoint_every=5, keep=3),
        devices=1,
        backend="scan",
        remat=True,
        debug_nans=True,
    )
    note, *told = result.err.splitlines()
    assert note.endswith(
        "the model can learn them by heart; more text, a smaller --hidden-dim or "
        "more --dropout helps"
    )
    expected = [line.replace("RUN", str(run)).replace("FLAGS", flags) for line in lines]
    assert (result.code, told) == (code, expected)
    moved = (tmp_path / "words.txt").rename(tmp_path / "moved.txt")
    told = call("train.py", "--resume", run, "--corpus", moved).err
    assert f"--resume {run} --corpus {moved}\n" in told or code == 3


def test_a_strangers_name_gives_no_orders_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @dataclasses.dataclass
    class Nothing:
        """No flags."""

    def main(arguments: Nothing) -> None:
        raise InputError("no \x1b[2J\x07 file \x9b1m\nof \u202ename")

    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit):
        cli.run(main, Nothing, None)
    assert capsys.readouterr().err == "error: no \\x1b[2J\\x07 file \\x9b1m of \\u202ename\n"


def test_who_reads_no_errors_gets_their_exit_code() -> None:
    fail = "raise cli.InputError('of nobody')"
    program = (
        f"from astra_jax import cli\n{DATACLASS}def main(_): {fail}\ncli.run(main, Arguments, None)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    assert process.stderr
    process.stderr.close()
    assert process.wait() == 2


def test_who_reads_no_output_gets_the_results_and_the_exit_code(
    trained: Trained, tmp_path: Path
) -> None:
    path = tmp_path / "losses.json"
    command = [
        sys.executable,
        str(SCRIPTS / "evaluate.py"),
        str(trained.words),
        "--json",
        str(path),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.close()
    assert process.wait() == 0
    assert json.loads(path.read_text())
    closed = shlex.join([sys.executable, str(SCRIPTS / "train.py"), "--summary"]) + " >&-"
    assert subprocess.run(closed, shell=True, check=True).returncode == 0


def test_a_run_that_does_not_fit_into_memory_does_not_go_on(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: 10**5)
    result = call("train.py", "--resume", trained.text)
    assert (result.code, "this machine has 100.0 kB" in result.err) == (2, True), result.err


@pytest.mark.parametrize(
    ("arguments", "title", "total", "size", "rows"),
    [
        (["--model", "alpha"], "Astra-α on shakespeare", "86,913", "0.35 MB", 7),
        (["--model", "large"], "names-γ on names", "4,155,420", "16.62 MB", 17),
        (["--hidden-dim", "8"], "Astra-custom", "6,513", "0.03 MB", 7),
        (["--level", "byte"], "Astra-α on shakespeare", "123,776", "0.50 MB", 7),
        pytest.param(
            ["--dtype", "float64"],
            "Astra-α on shakespeare",
            "86,913",
            "0.70 MB",
            7,
        ),
        (
            ["--model", "large", "--layer-norm", "False"],
            "names-custom on names",
            "4,154,396",
            "16.62 MB",
            15,
        ),
    ],
)
def test_summary_lists_every_parameter_and_writes_nothing(
    arguments: list[str],
    title: str,
    total: str,
    size: str,
    rows: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    out = succeed("train.py", "--summary", *arguments)
    assert out.startswith(title)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    cells = [row for row in cells if row]
    assert cells[-1] == ["total", "", size, total, ""]
    assert len(cells) == rows + 1
    counts = [int(row[3].replace(",", "")) for row in cells[:-1]]
    shapes = [math.prod(map(int, re.findall(r"\d+", row[2]))) for row in cells[:-1]]
    assert counts == shapes
    assert sum(counts) == int(total.replace(",", ""))
    assert list(tmp_path.iterdir()) == []


# Strategies, lengths and prompts mostly as in samples.txt: those programs are compiled already.


def test_sample_prints_the_prompt_and_as_many_characters_as_asked_for(trained: Trained) -> None:
    for strategy in (["--greedy"], ["--temperature", 0.8], ["--top-k", 20]):
        out = succeed("sample.py", trained.text, "--prompt", "First\nC", *strategy)
        assert out.startswith("First\nC")
        assert out.endswith("\n")
        assert len(out) == len("First\nC") + 200 + 1
    short = succeed("sample.py", trained.text, "--length", 5)
    assert short.startswith("ROMEO: ")
    assert len(short) == len("ROMEO: ") + 5 + 1


def test_sample_follows_from_its_seed(trained: Trained) -> None:
    command = ["sample.py", trained.text, "--temperature", 0.8, "--seed"]
    assert succeed(*command, 5) == succeed(*command, 5)
    assert succeed(*command, 5) != succeed(*command, 6)


def test_sample_prints_several_texts_between_separators(trained: Trained) -> None:
    texts = succeed("sample.py", trained.text, "--num", 3).removesuffix("\n")
    parts = texts.split("\n--------------------\n")
    assert [len(text) for text in parts] == [207] * 3
    assert len(set(parts)) == 3


def test_sample_of_words_prints_one_a_line(trained: Trained) -> None:
    def lines(*arguments: object) -> list[str]:
        return succeed("sample.py", trained.words, *arguments).removesuffix("\n").split("\n")

    # A model of two steps draws padding too, which is not shown.
    word = r"[a-jouv]{0,20}"
    default, prompted = lines("--temperature", 0.8), lines("--num", 7, "--prompt", "be")
    assert [len(default), len(prompted)] == [20, 7]
    assert all(re.fullmatch(word, line) for line in default)
    assert all(re.fullmatch(f"be{word}", line) for line in prompted)


def test_sample_stateless_sees_the_last_character_only(trained: Trained, tmp_path: Path) -> None:
    # Weights so large that the state shows in the logits, which that of two steps hardly does.
    strong, rng = tmp_path / "strong.safetensors", np.random.default_rng(3)
    shapes = {name: array.shape for name, array in load_file(trained.safetensors).items()}
    large = {name: rng.normal(0, 3, shape) for name, shape in shapes.items()}
    save_file({name: array.astype(np.float32) for name, array in large.items()}, strong)
    command = ["sample.py", strong, "--temperature", 0.8, "--prompt"]
    prompts = ["ZZZZZZ ", "KING I "]
    stateless = [succeed(*command, prompt, "--stateless")[7:] for prompt in prompts]
    stateful = [succeed(*command, prompt)[7:] for prompt in prompts]
    assert stateless[0] == stateless[1]
    assert stateful[0] != stateful[1]

    def successors(*arguments: str) -> int:
        text = succeed("sample.py", strong, "--greedy", *arguments)[6:-1]
        return len(set(itertools.pairwise(text))) - len(set(text[:-1]))

    # Who sees one character only, from a zero state, always goes on from it in the same way.
    assert successors("--stateless") == 0
    assert successors() > 0


def test_sample_reads_its_prompt_from_standard_input(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sample(prompt: str, *arguments: object) -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(prompt.encode())))
        return call("sample.py", trained.text, "--greedy", "--prompt", "-", *arguments)

    given = "First\nCitizen:\n" * 40  # More than the device is given at once.
    result = sample(given + "\n")
    assert result == (0, succeed("sample.py", trained.text, "--greedy", "--prompt", given), "")
    refused = sample("Café")
    assert (refused.code, refused.out) == (2, "")
    replaced = sample("Café", "--on-unknown", "replace")
    assert (replaced.code, replaced.err) == (0, "prompt: 'é' as 'e'\n")
    assert replaced.out == succeed("sample.py", trained.text, "--greedy", "--prompt", "Cafe")
    skipped = sample("Café", "--on-unknown", "skip", "--quiet")
    assert (skipped.code, skipped.err) == (0, "")
    assert skipped.out.startswith("Caf")


def test_sample_shows_every_piece_before_it_asks_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="utf-8"))
    seen: list[bytes] = []

    def pieces() -> Iterator[list[str]]:
        for piece in (["ab", "x"], ["cd", "y"]):
            yield piece
            seen.append(shown.getvalue())

    runpy.run_path(str(SCRIPTS / "sample.py"))["_print"](pieces(), "|")
    sys.stdout.flush()
    assert [*seen, shown.getvalue()] == [b"ab", b"abcd", b"abcd|xy\n"]


def test_sample_prints_as_it_writes_and_ends_quietly_when_nobody_reads(trained: Trained) -> None:
    # All of such a text would take minutes.
    command = [sys.executable, SCRIPTS / "sample.py", trained.text, "--length", str(10**7)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.read(100).startswith(b"ROMEO: ")
        process.stdout.close()
        assert (process.wait(timeout=30), process.stderr.read()) == (0, b"")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("script", ["train.py", "sample.py", "convert.py", "validate.py"])
def test_bash_completes_flags(script: str, tmp_path: Path) -> None:
    (tmp_path / "completion").write_text(succeed(script, "--tyro-print-completion", "bash"))
    typed = """
        source completion
        function=$(complete -p "$1" | sed "s/.*-F *\\([^ ]*\\).*/\\1/")
        COMP_WORDS=("$1" "$2") COMP_CWORD=1 COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
        "$function" && echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", typed, "bash", script, "--se"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    expected = {"train.py": {"--seed", "--seeds", "--seq-len"}, "convert.py": set()}
    assert (set(done.stdout.split()), done.stderr) == (expected.get(script, {"--seed"}), "")


def test_convert_all_the_way_round_changes_no_bit(trained: Trained, tmp_path: Path) -> None:
    run, safetensors = tmp_path / "run", tmp_path / "again.safetensors"
    succeed("convert.py", trained.pth, run)
    succeed("convert.py", run, safetensors)
    first, last = load_file(trained.safetensors), load_file(safetensors)
    assert {n: a.tobytes() for n, a in first.items()} == {n: a.tobytes() for n, a in last.items()}
    assert len(first) == 14
    sources = [trained.text, trained.pth, trained.safetensors, run, safetensors]
    for strategy in (["--greedy"], ["--temperature", 0.8]):
        assert len({succeed("sample.py", source, *strategy) for source in sources}) == 1


def with_hash(name: str) -> list[str]:
    return [name, f"{name}.sha256"]


def test_convert_numbers_the_notebooks_files(trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "saved_models"
    for number in (1, 2):
        out = succeed("convert.py", trained.text, "--notebook-dir", folder)
        assert out.splitlines() == [
            f"Astra-custom: wrote {folder / f'Astra_custom_v{number}.pth'}",
            f"Astra-custom: wrote {folder / 'Astra_custom_latest.pth'}",
        ]
    (folder / "Astra_custom_v2.pth").rename(folder / "Astra_custom_v9.pth")
    (folder / "Astra_custom_beta_v30.pth").touch()  # Another model's.
    succeed("convert.py", trained.text, "--notebook-dir", folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "Astra_custom_beta_v30.pth",
        "Astra_custom_latest.pth",
        *with_hash("Astra_custom_v1.pth"),
        *with_hash("Astra_custom_v10.pth"),
        "Astra_custom_v2.pth.sha256",
        "Astra_custom_v9.pth",
    ]
    newest = folder / "Astra_custom_v10.pth"
    assert newest.read_bytes() == (folder / "Astra_custom_latest.pth").read_bytes()
    checkpoint = torch.load(newest, weights_only=True)
    assert list(checkpoint.pop("state_dict")) == list(trained_state(trained))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", checkpoint.pop("timestamp"))
    assert checkpoint == dict(
        model_class="MyGRUModel",
        model_name="Astra-custom",
        n_classes=65,
        embd_dim=4,
        hidden_dim=8,
        dropout=0.1,
        vocab_size=65,
        num_layers=1,
        version=10,
    )


def test_mislabelled_file_loads_only_by_its_shapes(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "Astra_alpha_v1.pth"
    shutil.copy(trained.pth, path)
    refused = call("sample.py", path)
    assert refused.code == 2
    assert re.fullmatch(
        r"error: .*Astra_alpha_v1\.pth is mislabelled: its file name means Astra-α with "
        r"embedding_dim 64, not 4, hidden_dim 128, not 8\. .* pass --trust-shapes\n",
        refused.err,
    )
    loaded = succeed("sample.py", path, "--trust-shapes", "--greedy")
    assert loaded == succeed("sample.py", trained.pth, "--greedy")


def test_nothing_takes_the_builtin_text_for_another_silently(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the notebook's own file nobody knows what text it was trained on.
    succeed("convert.py", trained.text, "--notebook-dir", tmp_path)
    (notebook,) = tmp_path.glob("*_v1.pth")
    run = tmp_path / "run"
    assert call("convert.py", notebook, run, "--trust-shapes").code == 0
    assert Run.open(run).corpus.origin == "imported"
    scores = tmp_path / "scores.json"
    message = "does not tell what text it was trained on, and the published one is out of reach"
    for refused in (call("evaluate.py", run), call("train.py", "--resume", run)):
        assert refused.code == 2
        assert message in refused.err
    builtin = "--corpus", "builtin"
    evaluated = call("evaluate.py", run, *builtin, "--batches", "1", "--json", scores)
    assert (evaluated.code, WARNING in evaluated.err) == (0, True), evaluated.err
    (entry,) = json.loads(scores.read_text())["subjects"][0]["runs"]
    assert entry["corpus"]["origin"] == "built-in"
    with mock.patch.object(experiment, "fit", side_effect=DivergedError("stopped by the test")):
        result = call("train.py", "--resume", run, *builtin)
    assert (result.code, WARNING in result.err) == (3, True)


def test_scripts_work_from_any_folder_and_print_the_text_alone(
    trained: Trained, tmp_path: Path
) -> None:
    # In a process of its own, where nothing that a library writes to the terminal goes unseen.
    command = [sys.executable, str(SCRIPTS / "sample.py"), "../run", "--greedy"]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(trained.text)
    done = subprocess.run(
        command, cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=False
    )
    expected = succeed("sample.py", trained.text, "--greedy")
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


FLAGS = {
    "train.py": "--model --dataset --corpus --out --resume --epochs --steps-per-epoch --batch-size "
    "--seq-len --learning-rate --embedding-dim --hidden-dim --num-layers --dropout --optimizer "
    "--schedule --weight-decay --clip --seed --dtype --summary --dry-run --quiet --start-token "
    "--dedupe --level --recipe --carry-state --warmup-steps --decay --dropout-on "
    "--no-compile-cache",
    "sample.py": "--prompt --length --num --greedy --temperature --top-k --stateless --seed "
    "--corpus --on-unknown --quiet --no-compile-cache",
    "names_study.py": "--runs --out --epochs --corpus",
    "evaluate.py": "--best --corpus --batches --json",
    "convert.py": "--notebook-dir --trust-shapes --weights-only",
    "validate.py": "--model --dataset --weights --level --steps --characters --dtype --seed "
    "--corpus --json --trust-shapes",
}


@pytest.mark.parametrize("script", FLAGS)
def test_help_explains_every_flag_with_its_default(
    script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = re.sub(r"[│\s]+", " ", succeed(script, "--help"))
    rows = re.split(r"\s(--[a-z][a-z-]+)\s", text)[1:]
    described = dict(zip(rows[::2], rows[1::2], strict=True))
    assert described.keys() >= set(FLAGS[script].split())
    for flag, row in described.items():
        assert flag == "--help" or re.search(r"\w.*\. \(default: .+\)", row), (flag, row)


Damage = Callable[[dict[str, Any]], Any]


def trained_state(trained: Trained) -> dict[str, torch.Tensor]:
    return torch.load(trained.pth, weights_only=True)["state_dict"]


HIDDEN, HEAD = "layers.0.grucell.Wzh.weight", "fc.linear_projection.weight"
DAMAGES: dict[str, tuple[Damage, str]] = {
    "missing": (lambda s: s.pop(HIDDEN), f"missing {HIDDEN}; not expected nothing"),
    "extra": (
        lambda s: s.update({"fc.more": torch.zeros(3)}),
        "missing nothing; not expected fc.more",
    ),
    "transposed": (
        lambda s: s.update({HEAD: s[HEAD].T.contiguous()}),
        rf"{HEAD} has shape \(8, 65\), expected \(65, 8\) \(transposed\?\)",
    ),
    "nan": (lambda s: s[HIDDEN][1].fill_(math.nan), f"{HIDDEN} has 8 values that are NaN"),
    "infinite": (lambda s: s[HEAD][0, 0].fill_(math.inf), f"{HEAD} has 1 values that are NaN or"),
    "half": (lambda s: s.update({HEAD: s[HEAD].half()}), f"{HEAD} is float16, expected float32"),
    "empty": (lambda s: s.clear(), "missing .* more"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_refused(
    trained: Trained, tmp_path: Path, damage: str, suffix: str
) -> None:
    change, message = DAMAGES[damage]
    path = tmp_path / f"damaged{suffix}"
    checkpoint = torch.load(trained.pth, weights_only=True)
    del checkpoint["sha256"]  # Which would be the first to tell.
    change(checkpoint["state_dict"])
    if suffix == ".pth":
        torch.save(checkpoint, path)
    else:
        save_file({n: v.numpy() for n, v in checkpoint["state_dict"].items()}, path)
    require_refusal(tmp_path, message, "sample.py", path)
    require_refusal(tmp_path, message, "convert.py", path, tmp_path / "new_run")


def test_text_named_pth_is_refused(tmp_path: Path) -> None:
    for text in ("ROMEO: hi", "readme", "r"):
        (tmp_path / "text.pth").write_text(text)
        require_refusal(tmp_path, "text.pth is damaged or no ", "sample.py", tmp_path / "text.pth")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_weights_are_refused(
    trained: Trained, tmp_path: Path, suffix: str, share: float
) -> None:
    data = trained.pth.with_suffix(suffix).read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    require_refusal(tmp_path, f"cut{suffix} is damaged or no ", "sample.py", path)


def test_incomplete_run_checkpoint_is_refused(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.text, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "2" / "state" / "_METADATA").unlink()
    require_refusal(
        tmp_path,
        "checkpoint 2 in .*run/checkpoints cannot be read .*remove its folder to go on",
        "sample.py",
        tmp_path / "run",
    )


def test_a_best_checkpoint_is_not_there_before_the_first_epoch_is(
    trained: Trained, tmp_path: Path
) -> None:
    shutil.copytree(trained.text, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "best")
    message = "run/best is not there before an epoch is complete: take the newest"
    require_refusal(tmp_path, message, "sample.py", tmp_path / "run", "--best")


def test_home_is_found_where_the_shell_does_not(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    result = call("report.py", trained.text, "--no-samples", "--out=~/page.html")
    assert result.code == 0, result.err
    assert (tmp_path / "page.html").exists()


def test_a_report_of_several_seeds_takes_their_folder(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.text, tmp_path / "seed-0")
    shutil.copytree(trained.text, tmp_path / "seed-1")
    config = json.loads((tmp_path / "seed-1" / "config.json").read_text())
    config["preset"]["train"]["seed"] = 1
    (tmp_path / "seed-1" / "config.json").write_text(json.dumps(config))
    (tmp_path / "group.json").write_text(json.dumps({"format": 1, "seeds": [0, 1]}))
    result = call("report.py", tmp_path, "--no-samples")
    assert result.code == 0, result.err
    assert "seed-1" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_run_without_checkpoints_is_refused(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.text, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    message = "run/checkpoints holds no checkpoint: train first"
    require_refusal(tmp_path, message, "sample.py", tmp_path / "run")

    require_refusal(tmp_path, message, "evaluate.py", tmp_path / "run")


def test_evaluate_prints_a_row_for_each_run_and_writes_all_numbers(
    trained: Trained, tmp_path: Path
) -> None:
    path = tmp_path / "scores.json"
    runs = trained.text, trained.words
    result = call("evaluate.py", *runs, "--batches", 3, "--json", path)
    assert (result.code, result.err.count("\n")) == (0, 1)
    assert result.err.startswith(WARNING)
    scores = json.loads(path.read_text())
    text, words = (subject["runs"][0] for subject in scores["subjects"])
    (metrics,) = Run.open(trained.text).metrics()
    assert text["evaluation"]["windows_16"]["loss_nats"] == metrics.val_loss_nats
    assert (text["num_parameters"], text["trained_chars"]) == (1173, 2 * 4 * 16)
    assert text["train_seconds"] == pytest.approx(metrics.train_seconds, abs=1e-3)
    assert words["evaluation"]["all"]["loss_nats"] == pytest.approx(
        Run.open(trained.words).metrics()[0].val_loss_nats, rel=1e-6
    )
    # Each kind has columns of its own; losses stand there in nats, below them in bits.
    assert "built-in" in result.out
    for loss in (text["evaluation"]["carried"], words["evaluation"]["all"]):
        assert f" {loss['loss_nats']:.4f} " in result.out
        assert f" {loss['bits_per_char']:.4f} " in result.out
    assert all(len(line) <= 140 for line in result.out.splitlines()[:-1])
    assert str(trained.folder) not in path.read_text()


def test_evaluate_finds_a_text_that_has_moved_where_it_is_told(
    trained: Trained, tmp_path: Path
) -> None:
    shutil.copytree(trained.words, tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    gone = str(tmp_path / "gone.txt")
    config.write_text(config.read_text().replace(str(trained.folder / "words.txt"), gone))
    message = f"run was begun on {gone}, which is not there: give the text by --corpus FILE"
    require_refusal(tmp_path, message, "evaluate.py", tmp_path / "run")
    before = contents(tmp_path)
    told = ["--corpus", trained.folder / "words.txt"]
    assert "names-custom on words.txt" in succeed("evaluate.py", tmp_path / "run", *told)
    assert contents(tmp_path) == before


def require_refusal(folder: Path, message: str, script: str, *arguments: object) -> None:
    """Fails unless the script ends with one clear line, code 2, and nothing changed in a folder."""
    before = contents(folder)
    result = call(script, *arguments)
    assert (result.code, result.out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", result.err)
    assert re.search(message, result.err), result.err
    assert contents(folder) == before


REFUSALS: list[tuple[str, str, str]] = [
    # script, its arguments (RUN, WORDS and PTH stand for what is trained), what it says
    ("train.py", "--model delta", "unknown model 'delta' for .*; for --dataset names, small, "),
    ("train.py", "--dataset poems", "unknown dataset 'poems': choose one of shakespeare, names"),
    ("train.py", "--corpus empty.txt", "the corpus is empty: give a file with text"),
    ("train.py", "--corpus short.txt", "too short: 40 characters .* smaller --seq-len"),
    ("train.py", "--corpus latin.txt", "not UTF-8 text: byte 0xe9 at offset 3; convert"),
    ("train.py", "--corpus missing.txt", "cannot read the corpus missing.txt: No such file"),
    ("train.py", "--corpus .", "cannot read the corpus .: Is a directory"),
    ("train.py", "--dataset names --corpus dot.txt", "word 2, 'mr.x', contains '.'"),
    ("train.py", "--dataset names --corpus long.txt", "word 1, 'a{20}', has 20 .* --seq-len 20"),
    ("train.py", "--dataset names --corpus word.txt", "1 words are too few to split"),
    (
        "train.py",
        "--dataset names --corpus words.txt --steps-per-epoch 2",
        "steps_per_epoch must be at most 1, .* got 2",
    ),
    ("train.py", "--corpus builtin --out RUN", "RUN already holds a run: .* --resume"),
    ("train.py", "--corpus builtin --out full", "full is not empty: choose another folder"),
    ("train.py", "--corpus builtin --out short.txt", "short.txt is a file: choose a new folder"),
    ("train.py", "--corpus builtin --out x --backend fast", "unknown --backend 'fast': choose"),
    ("train.py", "--corpus builtin --out x --devices 99", "--devices 99 is not possible"),
    (
        "train.py",
        "--dataset names --corpus words.txt --epochs 3 --warmup-steps 3",
        "warmup_steps must be fewer than the training's 3, got 3: give a smaller",
    ),
    ("train.py", "--hidden-dim 0", "hidden_dim must be positive, got 0"),
    (
        "train.py",
        "--hidden-dim 65536 --num-layers 256",
        r"needs about 188\.5 TB \(.*\), this machine has .*: take a smaller --hidden-dim, ",
    ),
    (
        "train.py",
        "--batch-size 65536 --steps-per-epoch 16777216",
        "this machine has .*: take a smaller --batch-size or --steps-per-epoch",
    ),
    (
        "train.py",
        "--seq-len 1048576 --batch-size 999",
        ": take a smaller .*--seq-len.*, or --remat",
    ),
    ("train.py", "--resume RUN --dry-run", "leave out --dry-run"),
    ("train.py", "--modle=------", "Unrecognized options: --modle=------; see --help"),
    ("train.py", "--modle beta", "Unrecognized options: --modle, beta; is --model meant\\?; see"),
    ("train.py", "--epochs many", "--epochs must be a whole number, got 'many'; see --help"),
    ("train.py", "--clip", "Missing value for argument '--clip'; see --help"),
    ("train.py", "--dropout 0.9999999", "dropout must be 0, or from 1/65536 to 65535/65536"),
    ("train.py", "--dropout 1", "dropout must be at least 0 and below 1, got 1.0"),
    ("train.py", "--learning-rate nan", "learning_rate must be a finite number, got nan"),
    ("train.py", "--optimizer sgd", "optimizer must be one of adamw, adam, got 'sgd'"),
    ("train.py", "--clip -1", "clip must be positive .* got -1.0"),
    ("train.py", "--resume full", "full is not a run folder: it has no config.json"),
    ("train.py", "--resume RUN --out x --epochs 3", "leave out --out"),
    ("train.py", "--resume RUN --epochs 3 --clip 0", "epochs was 1, now 3; clip was 1.0, now None"),
    ("train.py", "--resume RUN --corpus short.txt", "was begun on built-in play .* found short"),
    ("sample.py", "RUN --top-k 66", "top-k must be at most 65, the size of the vocabulary, got 66"),
    ("sample.py", "RUN --top-k 0", "top-k must be at least 1, got 0"),
    ("sample.py", "RUN --temperature 0", "must be above 0 and at most .*, got 0; .* --greedy"),
    ("sample.py", "RUN --temperature -1", "temperature must be above 0 and at most .*, got -1"),
    ("sample.py", "RUN --temperature 1e39", "at most 1e\\+30, got 1e\\+39"),
    ("sample.py", "RUN --temperature nan", "temperature must be above 0 and at most .*, got nan"),
    (
        "sample.py",
        "RUN --top-k 3 --temperature 0",
        "temperature must be above 0 and at most .*, got 0",
    ),
    ("sample.py", "RUN --greedy --top-k 3", "--greedy excludes --temperature and --top-k"),
    ("sample.py", "RUN --prompt ROMÉO", r"character 'É' at position 4 \(line 1\) is not among"),
    ("sample.py", "WORDS --prompt bex", r"character 'x' at position 3 \(line 1\) .* 15 tokens"),
    ("sample.py", "WORDS --prompt be.", "the prompt 'be.' contains the end token: remove it"),
    ("sample.py", "RUN --prompt=", "the prompt is empty: give at least one character"),
    ("sample.py", "RUN --on-unknown keep", "invalid choice 'keep' .*'error', 'skip', 'replace'"),
    ("sample.py", "RUN --length 0", "length must be at least 1, got 0"),
    (
        "sample.py",
        "RUN --length 1000000000000",
        "at most 4,294,967,296, got 1 times 1,0.*ask for fewer",
    ),
    ("sample.py", "RUN --num 1000000000 --length 4", "num = 1,000,000,000 texts .*TB, this"),
    ("sample.py", "RUN --num -2", "num must be at least 1, got -2"),
    ("sample.py", "RUN --seed 18446744073709551616", "seed must be .* got 18446744073709551616"),
    ("sample.py", "full", "full is not a run folder: it has no config.json"),
    ("sample.py", "missing.pth", "there is no file missing.pth"),
    ("sample.py", "missing", "missing is neither a run folder nor a file named .pth or .safe"),
    ("sample.py", "short.txt", "short.txt is neither a run folder nor a file named .pth or"),
    (
        "sample.py",
        "x.onnx",
        "x.onnx: a .onnx file is made for other programs, and is not",
    ),
    (
        "sample.py",
        "PTH --corpus short.txt",
        "has other characters than short.txt, .* leave out --corp",
    ),
    ("evaluate.py", "", "no run folder is given: name at least one"),
    ("evaluate.py", "full", "full is not a run folder: it has no config.json"),
    ("evaluate.py", "PTH", "PTH is not a run folder: it has no config.json"),
    ("evaluate.py", "RUN --batches 0", "--batches must be at least 1, got 0"),
    ("evaluate.py", "RUN --json taken.pth", "taken.pth exists already: choose another name"),
    ("evaluate.py", "WORDS --corpus missing.txt", "cannot read the corpus missing.txt: No such"),
    ("evaluate.py", "WORDS --corpus dot.txt", "WORDS was begun on words.txt .* found dot.txt"),
    ("convert.py", "RUN", "nothing to write: give a destination or --notebook-dir"),
    ("convert.py", "RUN taken.pth", "taken.pth exists already: choose another name"),
    ("convert.py", "RUN taken.safetensors", "taken.safetensors exists already: choose another"),
    ("convert.py", "PTH WORDS", "WORDS already holds a run"),
    ("convert.py", "PTH full", "full is not empty"),
    ("convert.py", "RUN model.onnx.txt", "model.onnx.txt must end in .pth or .safetensors"),
    ("convert.py", "RUN missing/a.pth", "cannot write missing/a.pth: No such file or directory"),
    ("convert.py", "RUN new.pth --notebook-dir short.txt", "--notebook-dir short.txt is no folder"),
    ("benchmark.py", "--repeats 0", "--repeats must be at least 1, got 0"),
    ("benchmark.py", "--seconds nan", "--seconds must be above 0 and finite, got nan"),
]


@pytest.mark.parametrize(
    "error", [MemoryError("of 3 TiB"), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: of 3 TiB")]
)
def test_too_little_memory_is_told_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @dataclasses.dataclass
    class Nothing:
        """No flags."""

    def main(arguments: Nothing) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit) as end:
        cli.run(main, Nothing, None)
    assert end.value.code == 2
    assert re.fullmatch(r"error: the memory .* is not enough: .*3 TiB.*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [pytest.param(*row, id=" ".join(row[:2])) for row in REFUSALS],
)
def test_bad_input_gives_one_line_and_changes_nothing(
    trained: Trained,
    script: str,
    arguments: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {
        "empty.txt": b" \n",
        "short.txt": b"ab" * 20,
        "latin.txt": "café".encode("latin-1"),
        "dot.txt": b"anna\nmr.x\nbob",
        "long.txt": b"a" * 20 + b"\nbob\nanna\neve\nzoe",
        "word.txt": b"anna\n",
        "words.txt": WORDS.encode(),
        "taken.pth": b"precious",
        "taken.safetensors": b"precious",
        "full/thesis.txt": b"precious",
    }
    (tmp_path / "full").mkdir()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    for name, path in dict(RUN=trained.text, WORDS=trained.words, PTH=trained.pth).items():
        arguments = re.sub(rf"\b{name}\b", str(path), arguments)
        message = re.sub(rf"\b{name}\b", str(path), message)
    before = contents(trained.folder)
    require_refusal(tmp_path, message, script, *arguments.split())
    assert contents(trained.folder) == before


def test_any_file_trains_converts_and_continues_any_prompt_as_bytes(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from astra_torch.onnx_runtime import OnnxModel

    corpus = tmp_path / "image.bin"
    corpus.write_bytes(np.random.default_rng(0).bytes(3000))
    train = ["--corpus", corpus, "--level", "byte", *TINY, "--out", tmp_path / "run"]
    assert call("train.py", *train).code == 0
    assert Run.open(tmp_path / "run").vocabulary.is_bytes
    greedy = ["--prompt", "Ж\udcff", "--length", 40, "--quiet"]
    expected = succeed("sample.py", tmp_path / "run", *greedy)
    assert expected.startswith("Ж\udcff")
    names = ["a.pth", "a.safetensors", "a.onnx"]
    for name in names:
        succeed("convert.py", tmp_path / "run", tmp_path / name)
        if name != "a.onnx":
            assert succeed("sample.py", tmp_path / name, *greedy) == expected
    assert OnnxModel(tmp_path / "a.onnx").vocabulary.is_bytes
    # Not even the notebook's form, which has no place for a vocabulary, needs to be told.
    succeed("convert.py", tmp_path / "run", tmp_path / "bare.pth", "--weights-only")
    assert succeed("sample.py", tmp_path / "bare.pth", *greedy) == expected
    assert call("convert.py", tmp_path / "bare.pth", tmp_path / "bare").code == 0
    told = call("evaluate.py", tmp_path / "bare", "--corpus", corpus, "--batches", 2)
    assert told.code == 0, told.err
    assert "note: bare does not tell what it was trained on: it is evaluated as if on " in told.err
    refusal = call("train.py", *train[:4], "--dataset", "names", "--out", tmp_path / "words")
    assert refusal.code == 2
    assert "level must be char for words" in refusal.err


def test_a_platform_that_is_not_there_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
    command = [sys.executable, SCRIPTS / "train.py", "--corpus", "builtin", *TINY]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: JAX has no device for JAX_PLATFORMS=nonsense: ")


def test_a_training_goes_on_when_nobody_reads_of_it(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8") as nobody:
        result = call("train.py", "--corpus", "builtin", *TINY, "--out", tmp_path, out=nobody)
        assert result.code == 0, result.err
    assert (tmp_path / "samples.txt").is_file()
