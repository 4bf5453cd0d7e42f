"""A contract type for import-linter: `forbidden`, for modules of which some are still to be written."""

from __future__ import annotations

from grimp import ImportGraph
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.domain.contract import ContractCheck
from importlinter.domain.imports import ModuleExpression


class ForbiddenWherePresent(ForbiddenContract):
    """The forbidden contract over those of its `source_modules` that exist; the others are named in a warning.

    So a rule that the design already states holds from the moment a module is born.
    """

    type_name = "forbidden_where_present"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Check the modules that are there."""
        sources: set[ModuleExpression] = self.source_modules  # type: ignore[assignment] # fields become values on init
        present = {source for source in sources if source.expression in graph.modules}
        self.source_modules = present  # type: ignore[assignment]
        try:
            result = super().check(graph, verbose)
        finally:
            self.source_modules = sources  # type: ignore[assignment]
        absent = sorted(source.expression for source in sources - present)
        result.warnings.extend(f"{name} is not there yet." for name in absent)
        return result
