"""Every command, each a few lines: read the arguments, call flow, print. Imports what a command needs when it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from stillroom.errors import InputError, Interrupted, RunError, StillroomError, did_you_mean
from stillroom.evaluation.processes import collect_seldom

RUN = click.argument("run", type=click.Path(path_type=Path))
RECIPE_OR_DATA = click.argument("recipe", type=click.Path(path_type=Path), metavar="RECIPE|DATA")
LABEL = click.option("--label", help="With a data file in place of a recipe: the column to learn.")
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[section.key=value]...")
JSON = click.option("--json", "as_json", is_flag=True, help="Print machine-readable results on stdout.")


class Commands(click.Group):
    """The commands; an unknown one gets the nearest known."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in self.commands:
            cure = did_you_mean(args[0], self.commands)
            raise InputError(f"there is no command {args[0]!r}", where="command line", cure=cure)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="stillroom")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def stillroom(debug: bool) -> None:
    """Knowledge distillation: put what a large model knows into a small one, and prove what was kept.

    Start with `stillroom demo`, then `stillroom new ensemble`.
    """


def main() -> None:
    """The entry point: run a command; an error is one line on stderr and an exit status."""
    collect_seldom()
    try:
        # --debug may stand behind the command as well; _fail looks for it.
        stillroom.main([word for word in sys.argv[1:] if word != "--debug"], standalone_mode=False)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except click.UsageError as error:
        told = error.format_message().rstrip(".")
        command = error.ctx.command_path if error.ctx is not None else "stillroom"
        _fail(str(InputError(told[0].lower() + told[1:], where="command line", cure=f"See {command} --help")), 2)
    except StillroomError as error:
        _fail(str(error), error.exit_status)
    except (KeyboardInterrupt, click.Abort):
        stop = Interrupted("stopped by hand", cure="Run the same command again: it goes on where it was")
        _fail(str(stop), stop.exit_status)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        told = (error.strerror or type(error).__name__).lower()
        place = str(error.filename or "a file or a connection")
        _fail(str(RunError(told, where=place, cure="Look at that path, its permissions and its disk")), 1)
    except Exception as error:  # noqa: BLE001 - the last place an error can be shown to a person as one line
        _fail(
            f"{type(error).__name__}: {error} (inside Stillroom). Run again with --debug and report the traceback.", 1
        )


def _fail(message: str, status: int) -> None:
    if "--debug" in sys.argv:
        import traceback

        traceback.print_exc()
    click.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(status)


@stillroom.command()
@click.option("--run", "folder", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True)
@JSON
def demo(folder: Path, as_json: bool) -> None:
    """Ten networks into one small one, on digits that ship with scikit-learn: two panels, under a minute."""
    from stillroom import demo as panels
    from stillroom.progress import for_terminal

    scorecards, page = panels.run(folder, for_terminal())
    if as_json:
        click.echo(json.dumps(scorecards, indent=1, ensure_ascii=False))
    else:
        from stillroom import terminal

        for heading, scorecard in scorecards.items():
            terminal.print_scorecard(scorecard, heading)
        click.echo(f"report: {page}")


@stillroom.command()
@click.argument("kind", type=click.Choice(["ensemble", "compress", "language", "label", "socratic", "reasoning"]))
@click.option("--out", type=click.Path(path_type=Path), help="Write the recipe here instead of printing it.")
def new(kind: str, out: Path | None) -> None:
    """A starter recipe of at most 15 lines."""
    from stillroom.rundir import write_named
    from stillroom.starters import starter

    text = starter(kind, str(out or "recipe.yaml"))
    if out is None:
        click.echo(text, nl=False)
        return
    write_named(out, text.encode())
    click.echo(f"wrote {out}; look at it, then: stillroom check {out}", err=True)


def _table_or_recipe(recipe: Path, label: str | None, overrides: tuple[str, ...]) -> Any:
    """The recipe that a command names, or the one made for a data file and its label; arrays name their labels themselves."""
    from stillroom import flow
    from stillroom.recipe import Recipe
    from stillroom.tables import SUFFIXES

    suffix = recipe.suffix.lower()
    if label is None and suffix in SUFFIXES and suffix != ".json":
        raise click.UsageError(f"{recipe} is a data file, so say which column to learn with --label")
    is_data = label is not None or suffix == ".npz"
    return flow.table_recipe(recipe, label, overrides) if is_data else Recipe.load(recipe, overrides)


@stillroom.command()
@RECIPE_OR_DATA
@OVERRIDES
@LABEL
@click.option(
    "--pilot", type=click.IntRange(3), default=None, help="Make so many calls to a paid teacher, and tell from them."
)
@JSON
def check(recipe: Path, overrides: tuple[str, ...], label: str | None, pilot: int | None, as_json: bool) -> None:
    """Validate a recipe, or a data file with --label, and print the plan. Spends nothing but a --pilot."""
    from stillroom.flow import plan
    from stillroom.rundir import paths_start

    found = plan(_table_or_recipe(recipe, label, overrides), paths_start(recipe), pilot or 0)
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        from stillroom import terminal

        terminal.print_plan(found)


@stillroom.command()
@RECIPE_OR_DATA
@OVERRIDES
@LABEL
@click.option("--run", "folder", type=click.Path(path_type=Path), help="The run folder; runs/<name> by default.")
@JSON
def distill(recipe: Path, overrides: tuple[str, ...], label: str | None, folder: Path | None, as_json: bool) -> None:
    """All stages of a recipe, or of a data file with --label. Run again after any stop, it goes on."""
    from stillroom import flow
    from stillroom.progress import for_terminal
    from stillroom.rundir import paths_start

    loaded = _table_or_recipe(recipe, label, overrides)
    done = flow.distill(loaded, folder, folder=paths_start(recipe), show=for_terminal())
    _show(done.path, as_json)


def _show(path: Path, as_json: bool) -> None:
    from stillroom.rundir import read_json

    scorecard = read_json(path / "scorecard.json")
    if as_json:
        click.echo(json.dumps(scorecard, indent=1, ensure_ascii=False))
        return
    from stillroom import terminal

    terminal.print_scorecard(scorecard, scorecard["name"])
    click.echo(f"student: {path / 'student'}\nreport:  {path / 'report.html'}")


def _stage(name: str, made: str, words: str) -> None:
    @stillroom.command(name, help=words)
    @RUN
    def command(run: Path) -> None:
        from stillroom import flow
        from stillroom.finished import recipe_file
        from stillroom.progress import for_terminal

        flow.distill(recipe_file(run), run, show=for_terminal(), until=name)
        click.echo(f"{name}: finished, see {run / made}")


_stage(
    "ask",
    "transfer_set",
    "Up to the transfer set: train the teacher if the recipe says so, and ask what is not kept yet.",
)
_stage("train", "student", "Up to the students: train student, controls and arms from the answers that are kept.")
_stage("evaluate", "scorecard.json", "Up to the scorecard: predict once and compute every figure.")
_stage("report", "report.html", "Up to report.html.")


@stillroom.command()
@RUN
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Write here instead of printing.")
@JSON
def predict(run: Path, file: Path, out: Path | None, as_json: bool) -> None:
    """The student at work on a file of rows: label and probabilities as CSV, or JSON lines with --json."""
    from stillroom.finished import predict_file
    from stillroom.rundir import refuse_taken, write_named

    if out is not None:
        refuse_taken(out)  # before the work, not after
    text = predict_file(run, file, as_json)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_named(out, text.encode())


@stillroom.command("try")
@RUN
@click.option("--row", type=int, help="A row of the run's test split, instead of asking for values.")
def try_(run: Path, row: int | None) -> None:
    """The student by hand, with the teacher beside it."""
    from stillroom import terminal
    from stillroom.finished import Beside

    beside = Beside(run)
    values = beside.test_row(row) if row is not None else beside.from_hand(terminal.ask_value)
    terminal.print_beside(beside.answers(values))


@stillroom.command()
@click.option("--root", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@JSON
def runs(root: Path, as_json: bool) -> None:
    """The runs there are, with their figures."""
    from stillroom import terminal
    from stillroom.finished import list_runs

    found = list_runs(root)
    click.echo(json.dumps(found, indent=1)) if as_json else terminal.print_runs(found, root)


@stillroom.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@JSON
def compare(runs: tuple[Path, ...], as_json: bool) -> None:
    """Runs side by side."""
    from stillroom import terminal
    from stillroom.finished import side_by_side

    found = side_by_side(runs)
    click.echo(json.dumps(found, indent=1)) if as_json else terminal.print_comparison(found)


@stillroom.command()
@RUN
@click.option(
    "--onnx", "onnx", is_flag=True, required=True, help="For ONNX Runtime, checked against PyTorch on test rows."
)
@click.option("--int8", is_flag=True, help="In 8 bits as well, with what that costs in accuracy.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The folder to write; default RUN/onnx, and the report tells."
)
@JSON
def export(run: Path, onnx: bool, int8: bool, out: Path | None, as_json: bool) -> None:
    """The student for other programs."""
    from stillroom import terminal
    from stillroom.exporting import export_student

    found = export_student(run, out, int8)
    click.echo(json.dumps(found, indent=1)) if as_json else terminal.print_export(found)


@stillroom.command("export-answers")
@RUN
@click.option(
    "--parquet",
    is_flag=True,
    help="One row an answer: key, split, label, probabilities; of a language model a row a position.",
)
@click.option("--jsonl", is_flag=True, help="The same as JSON lines (the default).")
@click.option("--openai", is_flag=True, help="Chat messages, for fine-tuning services.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
def export_answers(run: Path, parquet: bool, jsonl: bool, openai: bool, out: Path) -> None:
    """The teacher's answers, for other tools."""
    from stillroom.finished import answers_for, notice_beside
    from stillroom.rundir import refuse_taken

    forms = [name for name, wanted in (("parquet", parquet), ("jsonl", jsonl), ("openai", openai)) if wanted]
    if len(forms) > 1:
        raise click.UsageError(f"one file has one form, and --{' and --'.join(forms)} are {len(forms)}")
    refuse_taken(out)
    count = answers_for(run, forms[0] if forms else "jsonl", out)
    click.echo(f"wrote {count:,} answers to {out}", err=True)
    if notice_beside(out).is_file():
        click.echo(f"whose they are, and under which licence, is told in {notice_beside(out)}", err=True)


@stillroom.command()
@click.argument("spec", type=click.Path(path_type=Path))
@OVERRIDES
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8011, show_default=True, help="0: any that is free.")
def loopback(spec: Path, overrides: tuple[str, ...], host: str, port: int) -> None:
    """A teacher on this machine that is asked like one over the network, for trying recipes; recipes/loopback has some."""
    from stillroom.loopback.serving import folders_of, serve
    from stillroom.loopback.spec import Spec
    from stillroom.rundir import paths_start

    loaded = Spec.load(spec, overrides)
    key = " with the key of api_key" if loaded.api_key else " with any key, or none"
    told = f"{loaded.model} answers at {{}}{key}; Ctrl-C ends it"
    desk = serve(loaded, folders_of(paths_start(spec)), host, port, lambda url: click.echo(told.format(url), err=True))
    click.echo(json.dumps(desk.bill.to_json(), indent=1))


@stillroom.command()
@click.option("--root", type=click.Path(path_type=Path), default=Path("service"), show_default=True, help="Its folder.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8010, show_default=True, help="0: any that is free.")
@click.option("--allow-host", multiple=True, help="A name or address that its URL may have, where others can reach it.")
@click.option("--allow-teacher", multiple=True, metavar="HOST:PORT", help="A teacher on a private address.")
@click.option("--forbid-teacher", multiple=True, metavar="HOST|MODEL", help="A teacher nobody may distil from.")
@click.option("--redact", multiple=True, metavar="REGEX", help="Blank what matches before a completion is stored.")
@click.option(
    "--redact-with", metavar="MODULE:FUNCTION", default="", help="Have a function of yours take out more: text -> text."
)
@click.option(
    "--requests-per-minute", type=click.IntRange(min=1), default=60_000, show_default=True, help="Of one key."
)
@click.option("--new-key", metavar="NAME", help="Make a key with every right, print it once, and serve nothing.")
@click.option("--open", "show", is_flag=True, help="Show the pages in this machine's browser.")
def serve(
    root: Path, host: str, port: int, allow_host: tuple[str, ...], allow_teacher: tuple[str, ...],
    forbid_teacher: tuple[str, ...], redact: tuple[str, ...], redact_with: str, requests_per_minute: int,
    new_key: str | None, show: bool,
) -> None:  # fmt: skip
    """The HTTP service and the web pages; the official OpenAI client works against it."""
    from stillroom.errors import ModelError

    try:
        from stillroom.service import serving
        from stillroom.service.settings import Limits, Settings
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("stillroom"):
            raise
        cure = "pip install 'stillroom[serve]'"
        raise ModelError(f"the service needs {error.name}, which is not installed", where="serve", cure=cure) from error
    if new_key is not None:
        click.echo(serving.new_key(root, new_key))
        return
    limits = Limits(requests_per_minute=requests_per_minute)
    settings = Settings(root, host, port, allow_host, allow_teacher, forbid_teacher, redact, redact_with, limits)

    def ready(url: str) -> None:
        click.echo(f"Stillroom serves at {url}; Ctrl-C ends it", err=True)
        if show and not serving.show(url):
            click.echo(f"No browser can be started here; open {url} in one", err=True)

    serving.serve(settings, ready)


@stillroom.command()
@click.argument("kind", required=False)
@JSON
def kinds(kind: str | None, as_json: bool) -> None:
    """Every teacher, question source, student, objective and metric, with its knobs."""
    from stillroom.catalogue import catalogue

    found: Any = catalogue(kind)
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        from stillroom import terminal

        terminal.print_catalogue(found, brief=kind is None)
