"""The section `records` of sources.yml as a pydantic model: one key per entity, its columns those of the contract."""

from typing import Any, cast

from pydantic import BaseModel, Field, create_model

from include.sources.record_contract import ENTITIES, SOURCE, Entity


def records_model(section: type[BaseModel], files: type[BaseModel], columns: type[BaseModel]) -> Any:
    """Return the model, made of the base models of a section, of a mapping of files, and of its columns."""
    fields: Any = {name: (_files(entity, files, columns) | None, None) for name, entity in ENTITIES.items()}
    return create_model("Records", __base__=section, **fields)


def _files(entity: Entity, files: type[BaseModel], columns: type[BaseModel]) -> Any:
    expressions: Any = {
        name: (str, Field(min_length=1)) if column.required else (str | None, None)
        for name, column in entity.columns.items()
    }
    mapped: Any = create_model(f"{entity.name}_columns", __base__=columns, **expressions)
    model = create_model(f"{entity.name}_files", __base__=files, columns=(mapped, ...))
    cast(Any, model).section = f"{SOURCE}.{entity.name}"
    return model
