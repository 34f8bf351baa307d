"""Two applications that begin alike: the second takes layers of the first. Needs no network, and no
root where copies do.
"""

import os
import tempfile
from pathlib import Path

from storagedrivers.build.events import StepDone
from storagedrivers.storage import Storage

# Who is not root can give no files to others.
DOCKERFILE = f"""\
FROM scratch
COPY --chown={os.getuid()}:{os.getgid()} library /library/
COPY --chown={os.getuid()}:{os.getgid()} %s.sh /application/
ENTRYPOINT ["sh", "/application/%s.sh"]
"""


def write_files(context: Path) -> None:
    """What the builds read."""
    (context / "library").mkdir()
    (context / "library/frame.sh").write_text('frame() { echo "[ $1 ]"; }\n')
    (context / "hello.sh").write_text(". /library/frame.sh; frame hello\n")
    (context / "clock.sh").write_text('. /library/frame.sh; frame "$(date)"\n')


def build(storage: Storage, context: Path, name: str) -> None:
    """Build one of them, and tell what was done for it."""
    told = []
    dockerfile = DOCKERFILE.replace("%s", name).encode()
    image = storage.build(context, dockerfile=dockerfile, tags=[name], on_event=told.append)
    for event in told:
        if isinstance(event, StepDone) and event.step.word == "COPY":
            done = "cached" if event.cached else "built"
            print(f"{name}: {done} {event.step.source.split()[-1]}")
    print(f"{name}: {len(storage.images.config(image).diff_ids)} layers")


def main(context: Path) -> None:
    """Build both, and the first one again when a file has changed."""
    write_files(context)
    with Storage.temporary() as storage:
        for name in ("hello", "clock"):
            build(storage, context, name)
        (context / "hello.sh").write_text(". /library/frame.sh; frame 'good morning'\n")
        build(storage, context, "hello")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(Path(directory))
