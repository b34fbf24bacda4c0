"""Everything the embedded registry knows: the bundled lock, and beside it what others registered, kept in one file."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from bridge.errors import ConfigError
from bridge.registry.store_file import DamagedFileError, read_document, write_document
from bridge.registry.store_model import LEVEL_DEFAULT, LEVELS, Registration, RegistryFaultError, SchemaRules

# Bundled ids are small and count up; ids of other schemas start here, so that a later release's lock meets none of
# them. The upper end is the largest signed 32-bit integer: the wire format has four bytes and Java reads them signed.
FOREIGN_ID_FIRST: Final = 2**30
FOREIGN_ID_COUNT: Final = 2**30


class Store:
    """Subjects, versions, ids and compatibility levels; a registration is on disk before it is answered."""

    def __init__(
        self, bundled: Iterable[Registration], *, rules: SchemaRules, path: Path | None = None, read_only: bool = False
    ) -> None:
        """Take the bundled registrations, then those of the file.

        Args:
            bundled: From the lock, in its order; their ids win over the file's.
            rules: What is a schema, and what may follow what.
            path: File of foreign registrations; None keeps them in memory only.
            read_only: Answer what is known and refuse the rest.

        Raises:
            ConfigError: The file is damaged or cannot be read.
        """
        self.read_only = read_only
        self._rules = rules
        self._path = path
        self._subjects: dict[str, list[Registration]] = {}
        self._by_id: dict[int, Registration] = {}
        self._by_form: dict[str, Registration] = {}
        self._foreign: list[Registration] = []
        self._levels: dict[str, str] = {}
        for registration in bundled:
            self._add(registration)
        self._bundled = frozenset(self._subjects)
        if path is not None:
            self._load(path)

    def subjects(self) -> list[str]:
        """Names of all subjects, sorted."""
        return sorted(self._subjects)

    def versions(self, subject: str) -> Sequence[Registration]:
        """All versions of a subject, oldest first; RegistryFaultError 40401 when there is none."""
        try:
            return self._subjects[subject]
        except KeyError:
            raise RegistryFaultError(40401, f"Subject '{subject}' not found.") from None

    def version(self, subject: str, version: int | None) -> Registration:
        """One version of a subject, or its latest for None; RegistryFaultError 40401 or 40402."""
        versions = self.versions(subject)
        if version is None:
            return versions[-1]
        for registration in versions:
            if registration.version == version:
                return registration
        raise RegistryFaultError(40402, f"Version {version} not found.")

    def by_id(self, schema_id: int) -> Registration:
        """The first registration of an id; RegistryFaultError 40403."""
        try:
            return self._by_id[schema_id]
        except KeyError:
            raise RegistryFaultError(40403, f"Schema {schema_id} not found") from None

    def by_guid(self, guid: str) -> Registration:
        """The first registration of a GUID; RegistryFaultError 40403."""
        for registration in self._by_id.values():
            if registration.guid == guid.lower():
                return registration
        raise RegistryFaultError(40403, "Schema not found")

    def holders(self, schema_id: int) -> list[Registration]:
        """Every registration of the schema that has this id; RegistryFaultError 40403."""
        form = self.by_id(schema_id).form
        return [found for name in self.subjects() for found in self._subjects[name] if found.form == form]

    def find(self, subject: str, text: str) -> Registration:
        """The version of a subject that says the same schema; RegistryFaultError 40401, 40403 or 42201."""
        versions = self.versions(subject)
        form = self._rules.form(text)
        for registration in versions:
            if registration.form == form:
                return registration
        raise RegistryFaultError(40403, "Schema not found")

    def level(self, subject: str | None = None, *, inherit: bool = True) -> str:
        """Level of a subject, or the one for all; RegistryFaultError 40408 if it has none and may not inherit it."""
        if subject is None:
            return self._levels.get("", LEVEL_DEFAULT)
        own = self._levels.get(subject, LEVEL_DEFAULT if subject in self._bundled else None)
        if own is None and not inherit:
            raise RegistryFaultError(40408, f"Subject '{subject}' does not have subject-level compatibility configured")
        return own or self.level()

    def set_level(self, subject: str | None, level: str) -> str:
        """Set and keep a level; RegistryFaultError 42203 for no level, 42205 when read-only."""
        if level.upper() not in LEVELS:
            raise RegistryFaultError(
                42203, f"Invalid compatibility level. Valid values are {', '.join(sorted(LEVELS))}"
            )
        self._refuse_when_read_only()
        levels = {**self._levels, subject or "": level.upper()}
        self._save(self._foreign, levels)
        self._levels = levels
        return level.upper()

    def incompatibilities(self, subject: str, text: str, against: Sequence[Registration]) -> list[str]:
        """Say why a schema may not follow these versions under the level of the subject; empty when it may."""
        form = self._rules.form(text)
        olds = [old.schema for old in against if old.form != form]
        ours = subject in self._bundled
        return self._rules.incompatibilities(text, olds, level=self.level(subject), ours=ours)

    def reach(self, subject: str) -> Sequence[Registration]:
        """Return the versions that the level of a subject holds a new one against; none if there is no subject."""
        known = self._subjects.get(subject, [])
        return known if self.level(subject).endswith("_TRANSITIVE") else known[-1:]

    def register(self, subject: str, text: str) -> Registration:
        """Return the version that says the same schema, or append one.

        Raises:
            RegistryFaultError: 42201 no schema, 40901 not compatible, 42205 unknown and read-only.
            OSError: It could not be kept; nothing has changed.
        """
        form = self._rules.form(text)
        earlier = self._subjects.get(subject, [])
        for registration in earlier:
            if registration.form == form:
                return registration
        self._refuse_when_read_only()
        reasons = self.incompatibilities(subject, text, self.reach(subject))
        if reasons:
            said = f"Schema being registered is incompatible with an earlier schema for subject '{subject}', details: "
            raise RegistryFaultError(40901, said + "; ".join(reasons))
        known = self._by_form.get(form)
        registration = Registration(
            subject=subject,
            version=earlier[-1].version + 1 if earlier else 1,
            id=known.id if known else self._free_id(form),
            guid=known.guid if known else str(uuid.uuid5(uuid.NAMESPACE_OID, form)),
            schema=text,
            form=form,
        )
        self._save([*self._foreign, registration], self._levels)
        self._foreign.append(registration)
        self._add(registration)
        return registration

    def _free_id(self, form: str) -> int:
        """Derive an id from the schema alone, so that registries that never met agree; step on past a collision."""
        offset = int.from_bytes(hashlib.sha256(form.encode()).digest()[:4]) % FOREIGN_ID_COUNT
        while FOREIGN_ID_FIRST + offset in self._by_id:
            offset = (offset + 1) % FOREIGN_ID_COUNT
        return FOREIGN_ID_FIRST + offset

    def _refuse_when_read_only(self) -> None:
        if self.read_only:
            raise RegistryFaultError(42205, "This registry is read-only; its schemas come with the release.")

    def _add(self, registration: Registration) -> None:
        self._subjects.setdefault(registration.subject, []).append(registration)
        self._by_id.setdefault(registration.id, registration)
        self._by_form.setdefault(registration.form, registration)

    def _save(self, foreign: Sequence[Registration], levels: Mapping[str, str]) -> None:
        if self._path is not None:
            rows = [{name: value for name, value in asdict(row).items() if name != "form"} for row in foreign]
            write_document(self._path, {"registrations": rows, "levels": dict(levels)})

    def _load(self, path: Path) -> None:
        try:
            document = read_document(path)
            if isinstance(document, dict):
                self._levels = dict(document["levels"])
                self._foreign = [
                    Registration(**row, form=self._rules.form(row["schema"])) for row in document["registrations"]
                ]
        except (DamagedFileError, OSError, KeyError, TypeError, RegistryFaultError) as exc:
            msg = f"{path}: damaged or unreadable ({type(exc).__name__}); restore it, or remove it to start afresh"
            raise ConfigError(msg) from None
        for registration in self._foreign:
            self._adopt(registration)

    def _adopt(self, registration: Registration) -> None:
        """Add a row of the file; a release may since have taken its version number, or have brought the very schema."""
        earlier = self._subjects.get(registration.subject, [])
        if any(known.form == registration.form for known in earlier):
            self._by_id.setdefault(registration.id, registration)
            return
        next_free = earlier[-1].version + 1 if earlier else 1
        self._add(replace(registration, version=max(registration.version, next_free)))
