"""Every table of the service, as SQLAlchemy Core has them. Times are Unix seconds; `number` gives the order of making.

Each row but a project belongs to a project, and is looked for under it: another project's id answers as an unknown one.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()
VERSION = "0005"
"""Of these tables: the number of the last migration."""


def _number() -> Column[int]:
    return Column("number", Integer, primary_key=True, autoincrement=True)


def _id() -> Column[str]:
    return Column("id", String, nullable=False, unique=True)


def _project() -> Column[str]:
    return Column("project_id", String, ForeignKey("projects.id"), nullable=False, index=True)


projects = Table(
    "projects", metadata, _number(), _id(),
    Column("name", String, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("trains_on_stored", Boolean, nullable=False, default=False),
    Column("retention_days", Integer),
)  # fmt: skip

keys = Table(
    "keys", metadata, _number(), _id(), _project(),
    Column("name", String, nullable=False),
    Column("digest", String, nullable=False, unique=True),
    Column("shown", String, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer),
    Column("revoked_at", Integer),
    sqlite_autoincrement=True,
)  # fmt: skip

files = Table(
    "files", metadata, _number(), _id(), _project(),
    Column("filename", String, nullable=False),
    Column("purpose", String, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("sha256", String, nullable=False),
    Column("status", String, nullable=False),
    Column("rows", Integer),
    Column("rejected", Integer, nullable=False, default=0),
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer),
    Column("deleted_at", Integer),
    sqlite_autoincrement=True,
)  # fmt: skip

uploads = Table(
    "uploads", metadata, _number(), _id(), _project(),
    Column("filename", String, nullable=False),
    Column("purpose", String, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("status", String, nullable=False),
    Column("expires_after", Integer),
    Column("file_id", String),
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False),
    sqlite_autoincrement=True,
)  # fmt: skip

upload_parts = Table(
    "upload_parts", metadata, _number(), _id(), _project(),
    Column("upload_id", String, ForeignKey("uploads.id"), nullable=False, index=True),
    Column("bytes", Integer, nullable=False),
    Column("created_at", Integer, nullable=False),
)  # fmt: skip

jobs = Table(
    "jobs", metadata, _number(), _id(), _project(),
    Column("created_at", Integer, nullable=False),
    Column("finished_at", Integer),
    Column("status", String, nullable=False, index=True),
    Column("model", String, nullable=False),
    Column("training_file", String, nullable=False),
    Column("validation_file", String),
    Column("suffix", String),
    Column("seed", Integer, nullable=False),
    Column("hyperparameters", JSON, nullable=False),
    Column("metadata", JSON),
    Column("asked", JSON, nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("estimate", JSON),
    Column("phases", JSON, nullable=False),
    Column("figures", JSON, nullable=False),
    Column("fine_tuned_model", String),
    Column("error", JSON),
    Column("wish", String),
    Column("token", Integer, nullable=False, default=0),
    Column("worker", String),
    Column("lease_until", Float),
    Column("attempts", Integer, nullable=False, default=0),
    Column("progress", String),
    sqlite_autoincrement=True,
)  # fmt: skip

events = Table(
    "events", metadata, _number(),
    Column("project_id", String, ForeignKey("projects.id"), nullable=False),
    Column("job_id", String, ForeignKey("jobs.id"), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("level", String, nullable=False),
    Column("type", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSON),
    Index("events_of_a_job", "job_id", "number"),
    sqlite_autoincrement=True,
)  # fmt: skip

models = Table(
    "models", metadata, _number(), _id(), _project(),
    Column("job_id", String, ForeignKey("jobs.id"), index=True),
    Column("kind", String, nullable=False),
    Column("base", String, nullable=False),
    Column("folder", String, nullable=False),
    Column("teacher", String),
    Column("cascade", JSON),
    Column("created_at", Integer, nullable=False),
    Column("deleted_at", Integer),
    sqlite_autoincrement=True,
)  # fmt: skip

teachers = Table(
    "teachers", metadata, _number(), _id(), _project(),
    Column("name", String, nullable=False),
    Column("base_url", String, nullable=False),
    Column("model", String, nullable=False),
    Column("sealed_key", LargeBinary),
    Column("key_shown", String),
    Column("price", JSON),
    Column("licence", String),
    Column("accepted_terms", JSON),
    Column("distillable", Boolean, nullable=False, default=True),
    Column("created_at", Integer, nullable=False),
    Column("deleted_at", Integer),
    sqlite_autoincrement=True,
)  # fmt: skip

completions = Table(
    "completions", metadata, _number(), _id(), _project(),
    Column("model", String, nullable=False),
    Column("request", JSON, nullable=False),
    Column("response", JSON, nullable=False),
    Column("metadata", JSON),
    Column("by", String, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("deleted_at", Integer),
    Column("teacher_id", String),
    Column("teacher_url", String),
    Column("teacher_model", String),
    Index("completions_erased", "deleted_at", sqlite_where=text("deleted_at IS NOT NULL")),
    sqlite_autoincrement=True,
)  # fmt: skip

completion_metadata = Table(
    "completion_metadata", metadata, _number(),
    Column("project_id", String, nullable=False),
    Column("completion_id", String, ForeignKey("completions.id"), nullable=False, index=True),
    Column("key", String, nullable=False),
    Column("value", String, nullable=False),
    Index("completions_by_metadata", "project_id", "key", "value"),
)  # fmt: skip

lineage = Table(
    "lineage", metadata, _number(),
    Column("project_id", String, nullable=False),
    Column("job_id", String, ForeignKey("jobs.id"), nullable=False, index=True),
    Column("source_id", String, nullable=False, index=True),
    Column("row", Integer, nullable=False),
    Column("deleted_at", Integer),
    Index("lineage_deleted", "project_id", "job_id", "deleted_at", sqlite_where=text("deleted_at IS NOT NULL")),
)  # fmt: skip

calls = Table(
    "calls", metadata, _number(), _project(),
    Column("created_at", Integer, nullable=False),
    Column("key_id", String),
    Column("model", String, nullable=False),
    Column("by", String, nullable=False),
    Column("tokens_in", Integer, nullable=False),
    Column("tokens_out", Integer, nullable=False),
    Column("nano_usd", Integer, nullable=False),
    Column("saved_nano_usd", Integer, nullable=False, default=0),
    Column("agreed", Boolean),
    Index("calls_by_time", "project_id", "created_at"),
)  # fmt: skip

creations = Table(
    "creations", metadata, _number(),
    Column("project_id", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("body_sha256", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("status", Integer),
    Column("answer", Text),
    Index("creations_by_name", "project_id", "key_id", "name", unique=True),
    sqlite_autoincrement=True,
)  # fmt: skip
