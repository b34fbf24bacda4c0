"""The example of the page copies every version, oldest first, in the form that Glue takes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from bridge.registry.loader import bundled

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "docs/examples/registries/glue.py"
# Of boto3 what the example calls; a definition of Glue is 170,000 characters at most.
STUB = """
import json
from types import SimpleNamespace

class Missing(Exception):
    pass

class Glue:
    exceptions = SimpleNamespace(EntityNotFoundException=Missing)
    schemas = {}

    def register_schema_version(self, *, SchemaId, SchemaDefinition):
        if SchemaId["SchemaName"] not in self.schemas:
            raise Missing
        return {"Status": self.keep(SchemaId["SchemaName"], SchemaDefinition)}

    def create_schema(self, *, RegistryId, SchemaName, DataFormat, Compatibility, SchemaDefinition):
        assert (RegistryId, DataFormat, Compatibility) == ({"RegistryName": "drx"}, "AVRO", "FULL_ALL")
        return {"SchemaVersionStatus": self.keep(SchemaName, SchemaDefinition)}

    def keep(self, name, definition):
        assert len(definition) < 170_000
        self.schemas[name] = definition
        print(definition)
        return "AVAILABLE"

client = lambda service: {"glue": Glue}[service]()
"""


def test_each_version_of_each_schema_is_copied_in_order(tmp_path: Path) -> None:
    (tmp_path / "boto3.py").write_text(dedent(STUB))
    done = subprocess.run(  # noqa: S603 - ours
        [sys.executable, EXAMPLE, "drx"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )

    lines, entries = done.stdout.splitlines(), bundled().entries
    assert [json.loads(each) for each in lines[::2]] == [each.schema for each in entries]
    assert lines[1::2] == [f"{each.record} {each.version} AVAILABLE" for each in entries]
