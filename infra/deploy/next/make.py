"""infra/deploy/upgrade calls this: it turns a copy of the tree into a made-up next release.

That release has more migrations (beside this file), its worker writes a column that this release does not know, and its
messages have a field that this release does not know.

    make.py TREE            changes TREE, and prints the version of the next release
    make.py --check TREE    changes nothing, and fails if TREE no longer has the places to change
"""

import pathlib
import re
import shutil
import sys

TREE = pathlib.Path(sys.argv[-1])
HERE = pathlib.Path(__file__).parent

CHANGES = {
    "shared/src/adapters/sql/locking.rs": [
        ("address_prefix, opened_at_ms) VALUES", "address_prefix, opened_at_ms, rehearsal_release) VALUES"),
        ("Result<[Value; 15], Failure>", "Result<[Value; 16], Failure>"),
        ("        origin.opened_at.into(),\n    ])", '        origin.opened_at.into(),\n        "next".into(),\n    ])'),
    ],
    "shared/src/adapters/rabbitmq/publish.rs": [
        ("    serde_json::to_vec(message).map_err(unavailable)",
         '    let mut body = serde_json::to_value(message).map_err(unavailable)?;\n'
         '    body["rehearsal"] = "next".into();\n'
         '    serde_json::to_vec(&body).map_err(unavailable)'),
    ],
}


def changed(path, changes):
    """The text of a file with its changes."""
    text = (TREE / path).read_text()
    for old, new in changes:
        if text.count(old) != 1:
            sys.exit(f"infra/deploy/next/make.py: {path} has changed, it has no longer one place with: {old}")
        text = text.replace(old, new)
    return text


def main():
    texts = {path: changed(path, changes) for path, changes in CHANGES.items()}
    if sys.argv[1] == "--check":
        return
    for path, text in texts.items():
        (TREE / path).write_text(text)
    for database in ["mysql", "sqlite"]:
        for migration in (HERE / database).glob("*.sql"):
            shutil.copy(migration, TREE / "shared/migrations" / database)
    manifest = (TREE / "Cargo.toml").read_text()
    major, minor = re.search(r'^version = "(\d+)\.(\d+)\.\d+"$', manifest, re.M).groups()
    release = f"{major}.{int(minor) + 1}.0"
    (TREE / "Cargo.toml").write_text(re.sub(r'^version = "[\d.]+"$', f'version = "{release}"', manifest, count=1, flags=re.M))
    print(release)


main()
