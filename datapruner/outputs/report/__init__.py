"""One self-contained HTML page that shows what was kept and why; needs the extra ``report``."""

from datapruner.outputs.report.made import Section
from datapruner.outputs.report.page import has_report, require_report, save_report, write_report

__all__ = ["Section", "has_report", "require_report", "save_report", "write_report"]
