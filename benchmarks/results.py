"""Write the tables of docs/results.md from docs/results/<name>.json, each between two comments in the page.

python benchmarks/results.py

Each file was written by ``python src/studies.py export STUDY docs/results/<name>.json`` once its search had come to its
end, with its finals and its test, or the ablation had.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from iolaus import metric_table
from iolaus.classifier.run.config import project_root
from iolaus.compare import variants
from iolaus.compare.statistics import format_mean, format_value

PAGE = project_root() / "docs" / "results.md"
FAMILIES = {"best_cnn": "CNN", "best_mlp": "MLP, images as they are", "tiny_cnn": "CNN of at most 10,000 parameters"}
"""Names of files, and of the networks."""
SEARCHES = {**FAMILIES, "earlier_cnn": "CNN, the earlier search"}
COMPARISONS = {
    "lengths": "longer_cnn",
    "bent": "elastic_cnn",
    "sizes": "wider_cnn",
    "components": "udacity",
    "together": "udacity_lean",
}
"""Names of tables that compare settings, and of their files."""
IMPORTANT = 3
"""How many importances are named."""

Results = Mapping[str, Any]
"""The results of a study, as `iolaus.reporting.export` writes them."""


def those(titles: Mapping[str, str], kept: Mapping[str, Results]) -> Iterator[tuple[str, str, Results]]:
    """The name, the title and the results of each that is there."""
    yield from ((name, title, kept[name]) for name, title in titles.items() if name in kept)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table."""
    yield from (f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def families(kept: Mapping[str, Results]) -> Iterator[str]:
    """What each family's winner comes to on test."""
    rows = []
    for name, title, results in those(FAMILIES, kept):
        test = results["test"]
        epochs = re.findall(r"\bepochs=(\d+)", results["environment"]["overrides"])[-1]
        costs = [metric_table.of("params").shown(test["params"]), epochs, f"{test['fit_s']:.0f}"]
        rows.append([title, format_mean(test, "test/accuracy"), *costs, f"`experiment={name}`"])
    yield from table(["", "test accuracy", "parameters", "epochs", "seconds of training", "once more"], rows)


def published(kept: Mapping[str, Results]) -> Iterator[str]:
    """Each winner below what others have published, in docs/published.csv."""
    with open(PAGE.parent / "published.csv", newline="") as file:
        others = list(csv.DictReader(file))
    for name, title, results in those(FAMILIES, kept):
        rows = [
            [f"[{other['what']}]({other['source']})", other["accuracy"], other["parameters"], other["figure"]]
            for other in others
            if other["family"] == name
        ]
        test = results["test"]
        how = f"mean over {test['n']} seeds with its interval; nothing chosen on test"
        params = metric_table.of("params").shown(test["params"])
        ours = ["**ours**", f"**{format_mean(test, 'test/accuracy')}**", params, how]
        yield from table([title, "test accuracy", "parameters", "the figure is"], [*rows, ours])
        yield ""


def searches(kept: Mapping[str, Results]) -> Iterator[str]:
    """What each search cost, and how far its best value flattered itself."""
    rows = []
    for _, title, results in those(SEARCHES, kept):
        parts = results["parts"]
        trials, first = parts["search"]["trials"], results["finals"]["finalists"][0]
        counts = [str(sum(trials.values())), str(trials.get("pruned", 0))]
        minutes = ", ".join(f"{parts[part]['busy_s'] / 60:.0f}" for part in ("search", "finals", "test"))
        values = [format_value(first["best"], "val/accuracy"), format_mean(first, "val/accuracy")]
        rows.append([title, *counts, minutes, *values])
    counted = ["trials", "of them pruned", "minutes: search, finals, test"]
    yield from table(["", *counted, "its best on val", "the same with new seeds"], rows)


def importances(kept: Mapping[str, Results]) -> Iterator[str]:
    """What mattered most in each search."""
    rows = []
    for _, title, results in those(SEARCHES, kept):
        found = results["search"]["importances"]
        most = sorted(found["percent"].items(), key=lambda item: -item[1][0])[:IMPORTANT]
        words = [f"`{key}` {share:.0f} % ({low:.0f} to {high:.0f})" for key, (share, low, high) in most]
        words += [] if found["clear"] else ["too few trials to say which matters most"]
        rows.append([title, found["problem"] or ", ".join(words), str(found["of"])])
    what = "what tells the best trials from all complete ones: share, and its 95 % interval"
    yield from table(["", what, "of so many"], rows)


def commands(kept: Mapping[str, Results]) -> Iterator[str]:
    """The command behind each file, with what it ran on."""
    for name, results in kept.items():
        tags = results["environment"]
        on = f"{results['cores']} cores, {tags['resolved.precision']}, torch {tags['version.torch']}"
        changed = ", with changes" if tags["git_dirty"] == "true" else ""
        commit = f"commit {tags['mlflow.source.git.commit'][:7]}{changed}"
        yield f"- [{name}.json](results/{name}.json): `{results['command']}` ({on}, {commit})"


def compared(results: Results) -> Iterator[str]:
    """What settings came to on val, and what they cost."""
    head, *rows = variants.table(results["comparison"])
    yield from table(head, rows)


def tables(kept: Mapping[str, Results]) -> Iterator[tuple[str, Iterator[str]]]:
    """The lines of each table, and what the comments around it call it."""
    for lines in (families, published, searches, importances, commands):
        yield lines.__name__, lines(kept)
    for name, file in COMPARISONS.items():
        yield name, compared(kept[file])


def page(text: str, kept: Mapping[str, Results]) -> str:
    """The page with new tables in it.

    Raises:
        ValueError: if a table has no place in it.
    """
    for name, lines in tables(kept):
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, opened, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (opened and closed):
            raise ValueError(f"{PAGE} must have a line <!-- {name} --> and below it <!-- end of {name} -->")
        text = "".join([before, begin, "\n".join(lines), end, after])
    return text


def kept_results() -> dict[str, Results]:
    """What is kept, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((PAGE.parent / "results").glob("*.json"))}


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), kept_results()))
