"""Write the lock of HAPI's jars anew: `python -m tests.fhir.relock`, with Maven on the PATH, after a change below.

Maven resolves, since jgo's resolver leaves out what these projects manage by their parents; the tests then fetch what
the lock says and need no Maven.
"""

import hashlib
import subprocess
import tempfile
from pathlib import Path

from tests.fhir.hapi import LOCK

WANTED = (
    *(
        ("ca.uhn.hapi.fhir", artifact, "8.8.0")
        for artifact in (
            "hapi-fhir-jpaserver-base",
            "hapi-fhir-structures-r4",
            "hapi-fhir-validation",
            "hapi-fhir-validation-resources-r4",
            "hapi-fhir-caching-caffeine",
            "hapi-fhir-server",
        )
    ),
    ("com.h2database", "h2", "2.3.232"),
    ("org.eclipse.jetty.ee10", "jetty-ee10-servlet", "12.0.16"),
    # Compiles the server: the packaged Java is one without a compiler.
    ("org.eclipse.jdt", "ecj", "3.38.0"),
)
_POM = """\
<project><modelVersion>4.0.0</modelVersion><groupId>drx</groupId><artifactId>hapi</artifactId><version>1</version>
<dependencies>{}</dependencies></project>
"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


def main() -> None:
    """Resolve, hash, write."""
    with tempfile.TemporaryDirectory() as scratch:
        pom = Path(scratch) / "pom.xml"
        pom.write_text(_POM.format("".join(_DEPENDENCY.format(*each) for each in WANTED)))
        listed, repository = Path(scratch) / "list", Path(scratch) / "repository"
        maven = ["mvn", "--quiet", "--batch-mode", f"-Dmaven.repo.local={repository}", "--file", str(pom)]
        subprocess.run(  # noqa: S603 - ours
            [*maven, "dependency:list", "-DincludeScope=runtime", f"-DoutputFile={listed}"], check=True
        )
        entries = sorted(
            (group, artifact, version)
            for group, artifact, kind, version, *scope in (
                line.split(" -- ")[0].strip().split(":") for line in listed.read_text().splitlines() if ":jar:" in line
            )
            if kind == "jar" and len(scope) == 1  # one with a classifier is data for other programs
        )
        LOCK.write_text(
            "# The jars of a HAPI FHIR server and its validator, for tests; written by `python -m tests.fhir.relock`.\n"
            + "".join(
                f'\n[[dependencies]]\ngroupId = "{group}"\nartifactId = "{artifact}"\nversion = "{version}"\n'
                f'sha256 = "{_sha256(repository, group, artifact, version)}"\n'
                for group, artifact, version in entries
            )
        )


def _sha256(repository: Path, group: str, artifact: str, version: str) -> str:
    path = repository / group.replace(".", "/") / artifact / version / f"{artifact}-{version}.jar"
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
