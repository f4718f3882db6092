"""infra/deploy/upgrade calls this: it turns a copy of the tree into a made-up next release.

That release has more migrations (beside this file), its worker writes a column that this release does not know, and its
messages have a field that this release does not know.
"""

import pathlib
import re
import shutil
import sys

TREE = pathlib.Path(sys.argv[1])
HERE = pathlib.Path(__file__).parent

CHANGES = {
    "shared/src/adapters/sql/locking.rs": [
        ("INSERT INTO orders ({ORDER_COLUMNS}, active_slot) VALUES", "INSERT INTO orders ({ORDER_COLUMNS}, active_slot, rehearsal_release) VALUES"),
        ("Result<[Value; 12], Failure>", "Result<[Value; 13], Failure>"),
        ("        (*slot).into(),\n    ])", '        (*slot).into(),\n        "next".into(),\n    ])'),
    ],
    "shared/src/adapters/rabbitmq/publish.rs": [
        ("let body = serde_json::to_vec(&message).map_err(unavailable)?;",
         'let mut body = serde_json::to_value(&message).map_err(unavailable)?;\n'
         '        body["rehearsal"] = "next".into();\n'
         '        let body = serde_json::to_vec(&body).map_err(unavailable)?;'),
    ],
}


def main():
    for path, changes in CHANGES.items():
        text = (TREE / path).read_text()
        for old, new in changes:
            if text.count(old) != 1:
                sys.exit(f"infra/deploy/next/make.py: {path} has changed, it has no longer one place with: {old}")
            text = text.replace(old, new)
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
