"""Data Docs: Great Expectations' own pages, made to be read without a network.

Its templates take their styles from content delivery networks and fill the index by script, so that offline
the index is empty. The views here write the style into each page, leave scripts out, and list the results
in a plain table. Great Expectations names these classes in the site's configuration.
"""

import re
from collections import Counter
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from great_expectations.data_context import AbstractDataContext
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.data_context.types.resource_identifiers import ValidationResultIdentifier
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.render.components import RenderedHeaderContent
from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
from great_expectations.render.renderer.site_builder import DefaultSiteIndexBuilder
from great_expectations.render.view import DefaultJinjaPageView
from jinja2.bccache import Bucket, BytecodeCache

SITE = "stratum"
# A gate's results stay in audit.checks for ever; the site holds those of the newest runs, so that writing it
# costs the same every day.
RUNS_SHOWN = 30
PASSED, WARNED, FAILED = "passed", "warned", "FAILED"

STYLE = (Path(__file__).parent / "data_docs.css").read_text()
_LEFT_OUT = re.compile(
    r"<style\b.*?</style>|<script\b.*?</script>|<link\b[^>]*href=\"https?://[^>]*>|<img\b[^>]*src=\"https?://[^>]*>|<footer\b.*?</footer>",
    re.DOTALL | re.IGNORECASE,
)


def context_config(home: Path, docs: Path) -> DataContextConfig:
    """Return a context that keeps suites and results under `home`/gx, the site under `docs`, and no connection.

    Datasources live in memory, so no file ever holds the warehouse's password.
    """
    defaults = InMemoryStoreBackendDefaults()
    stores = {
        **defaults.stores,
        defaults.expectations_store_name: _files("ExpectationsStore", home / "gx" / "expectations"),
        defaults.validation_results_store_name: _files("ValidationResultsStore", home / "gx" / "validations"),
    }
    section = {"class_name": "DefaultSiteSectionBuilder", "view": _own("PageView")}
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)},
        "site_index_builder": {
            **_own("IndexBuilder"),
            "renderer": _own("IndexContent"),
            "view": _own("IndexView"),
        },
        "site_section_builders": {
            "expectations": section,
            "validations": {**section, "renderer": _own("ResultPage")},
            "profiling": "None",
        },
    }
    return DataContextConfig(
        store_backend_defaults=defaults,
        stores=stores,
        data_docs_sites={SITE: site},
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
    )


def write_docs(context: AbstractDataContext, run_id: str) -> str:
    """Add the pages of a run's results to the site, drop the pages of old runs, and return the index's URL."""
    store = context.validation_results_store
    keys = [key for key in store.list_keys() if isinstance(key, ValidationResultIdentifier)]
    newest: dict[str, Any] = {}
    for key in sorted(keys, key=lambda key: key.run_id.run_time):
        newest.pop(key.run_id.run_name, None)
        newest[key.run_id.run_name] = key.run_id.run_time
    shown = set(list(newest)[-RUNS_SHOWN:])
    for key in keys:
        if key.run_id.run_name not in shown:
            store.remove_key(key)
    of_run = [key for key in keys if key.run_id.run_name == run_id]
    pages: list[Any] = [*of_run, *(key.expectation_suite_identifier for key in of_run)]
    return context.build_data_docs(resource_identifiers=pages)[SITE]


def _files(kind: str, folder: Path) -> dict[str, Any]:
    return {
        "class_name": kind,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
    }


def _own(name: str) -> dict[str, str]:
    return {"module_name": __name__, "class_name": name}


class CompiledTemplates(BytecodeCache):
    """Great Expectations' templates as compiled once: each of its views would compile them all anew."""

    def __init__(self) -> None:
        """Begin without any."""
        self.code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Hand over a template that was compiled before; the bucket itself sees whether its text has changed."""
        if bucket.key in self.code:
            bucket.bytecode_from_string(self.code[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep a template that was compiled."""
        self.code[bucket.key] = bucket.bytecode_to_string()


COMPILED = CompiledTemplates()


class PageView(DefaultJinjaPageView):
    """A page of a suite or of a result, whole in one file."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Take what Great Expectations makes a view with."""
        super().__init__(*arguments, **named)
        self.env.bytecode_cache = COMPILED

    def render(self, document: Any, template: str | None = None, **kwargs: Any) -> str:
        """Return the page's HTML with its style inside and nothing fetched from elsewhere."""
        page = _LEFT_OUT.sub("", super().render(document, template, **kwargs))
        return page.replace("</head>", f"<style>{STYLE}</style></head>", 1)


class IndexBuilder(DefaultSiteIndexBuilder):
    """Gathers the index's links, and says of a result that is not whole whether it stopped the chain."""

    def add_resource_info_to_index_links_dict(self, *places: Any, **told: Any) -> Any:
        """Add a link, with `stops`: whether a check that stops the chain failed; warnings stop nothing."""
        links = super().add_resource_info_to_index_links_dict(*places, **told)
        if told.get("validation_success") is False:
            result: Any = self.data_context.get_validation_result(
                expectation_suite_name=told["expectation_suite_name"],
                run_id=told["run_id"],
                batch_identifier=told["batch_identifier"],
            )
            links["validations_links"][-1]["stops"] = _stops(result)
        return links


class ResultPage(ValidationResultsPageRenderer):
    """The page of a result, which says of one that is not whole what the index says of it."""

    @classmethod
    def _render_validation_header(cls, validation_results: Any) -> RenderedHeaderContent:
        """Return the page's heading; Great Expectations calls a result failed whatever a check's severity is."""
        header = super()._render_validation_header(validation_results)
        if not validation_results.success and not _stops(validation_results):
            told = header.subheader.string_template["params"]
            told["success"] = "Warned: a warning stops nothing"
            told["html_success_icon"] = told["html_success_icon"].replace("text-danger", "text-warning")
        return header


def _stops(result: Any) -> bool:
    """Return whether a check that stops the chain failed."""
    return result.get_max_severity_failure() is FailureSeverity.CRITICAL


class IndexContent:
    """The index's content is the list of links itself."""

    def render(self, links: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what it is given."""
        return links


class IndexView:
    """The index: every result of the newest runs, the newest first, as a plain table."""

    def __init__(self, custom_styles_directory: Any = None, custom_views_directory: Any = None) -> None:
        """Take the arguments that every view is made with; there are no templates to look for."""

    def render(self, links: Mapping[str, Any], **kwargs: Any) -> str:
        """Return the index's HTML."""
        results = sorted(links.get("validations_links", []), key=lambda link: link["run_time"], reverse=True)
        rows = "\n".join(_row(link) for link in results)
        words = Counter(_word(link) for link in results)
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="UTF-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1.0">'
            f"<title>Stratum data quality</title><style>{STYLE}</style></head><body>"
            '<nav class="navbar"><strong>Stratum</strong> data quality</nav><div class="container-fluid">'
            f'<h1>Gate results</h1><p class="lead">{len(results)} tables checked in the newest runs ({RUNS_SHOWN} at most), '
            f"{words[FAILED]} of them failed, {words[WARNED]} warned. A warning stops nothing. "
            "Every check of every run is in <code>audit.checks</code>.</p>"
            '<table class="results"><tr><th>Checked at (UTC)</th><th>Run</th><th>Gate</th><th>Table</th>'
            f"<th>Result</th></tr>\n{rows}\n</table></div></body></html>\n"
        )


def _word(link: Mapping[str, Any]) -> str:
    if link["validation_success"]:
        return PASSED
    return FAILED if link["stops"] else WARNED


def _row(link: Mapping[str, Any]) -> str:
    gate, _, table = link["expectation_suite_name"].partition(".")
    word = _word(link)
    cells = (
        f"{link['run_time']:%Y-%m-%d %H:%M:%S}",
        escape(str(link["run_name"])),
        escape(gate),
        f'<a href="{escape(link["filepath"], quote=True)}">{escape(table)}</a>',
        f'<span class="{word.lower()}">{word}</span>',
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
