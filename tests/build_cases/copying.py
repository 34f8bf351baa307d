"""COPY."""

from __future__ import annotations

from build_cases.contexts import Case, directory, file, hard_link, program, symlink
from storagedrivers.testing.trees import CAPABILITY

_TREE = {
    "tree/a": "a\n",
    "tree/b/c": "c\n",
    "tree/b/run.sh": program("#!/bin/sh\n"),
    "tree/empty": directory(),
    "tree/link": symlink("b/c"),
    "tree/linked directory": symlink("b"),
    "tree/dangling": symlink("/no where"),
}

CASES = [
    Case(
        "one file in every way",
        """\
FROM base
COPY file /
COPY file /renamed
COPY file /new/directory/
COPY file /new/other/name
COPY file other /both/
COPY ["with space", "/to space/"]
COPY file .
COPY ./file ./relative
COPY /file /from-slash
COPY directory/../other /cleaned
COPY directory/below/deep /deep
COPY file /usr
COPY file /tmp/
""",
        {
            "file": "file\n",
            "other": "",
            "with space": "space\n",
            "directory/below/deep": "deep\n",
        },
    ),
    Case(
        "directories in every way",
        """\
FROM base
COPY tree /one
COPY tree/ /two/
COPY tree/. three/
COPY tree/b /four/five
COPY . /all
COPY tree/b other /many/
COPY tree /opt
""",
        {**_TREE, "other/x": "x\n"},
    ),
    Case(
        "modes and owners of the context",
        """\
FROM base
RUN mkdir -m 700 /have && mkdir -m 711 /have/sub /have/kept && chown svc /have /have/sub
COPY top /new
COPY top /have
COPY top/sub /sub
COPY top/setuid /
COPY top/open /home/svc/made/
COPY top/sub /home/svc/copied/below
""",
        {
            "top": directory(0o750, owner=(5, 6)),
            "top/setuid": file("s", 0o4755, owner=(1, 2)),
            "top/setgid": file("g", 0o2755),
            "top/sticky": file("t", 0o1644),
            "top/closed": file("c", 0),
            "top/open": file("o", 0o777),
            "top/sub": directory(0o2770, owner=(3, 4)),
            "top/sub/odd": file("odd", 0o416),
            "top/temporary": directory(0o1777),
            "top/private": directory(0o500),
            "top/private/x": "x",
        },
    ),
    Case(
        "attributes and hard links of the context",
        """\
FROM base
COPY top /top
COPY top/one top/two /separate/
""",
        {
            "top/one": file("one\n", xattrs={"user.a": b"b"}),
            "top/two": hard_link("top/one"),
            "top/below/three": hard_link("top/one"),
            "top/able": program("able\n", xattrs={"security.capability": CAPABILITY}),
            "top/directory": directory(xattrs={"user.c": b"d"}),
            "top/symlink": symlink("one"),
            "top/symlink again": hard_link("top/symlink"),
        },
    ),
    Case(
        "what is there is replaced",
        """\
FROM base
RUN mkdir -p /w/dir/sub && touch /w/file /w/dir/old && ln -s dir /w/link && ln -s file /w/flink
COPY w /w
COPY again/file /w/flink2
""",
        {
            "w/file/now": "a directory\n",
            "w/dir/sub": "a file\n",
            "w/link/real": "real\n",
            "w/flink": "no link\n",
            "again/file": "again\n",
        },
    ),
    Case(
        "links in the destination",
        """\
FROM base
RUN mkdir -p /real/sub /w && ln -s /real /absolute && ln -s ../real /w/relative \\
    && ln -s ../../../../real /w/climbing && echo old >/real/target \\
    && ln -s /real/target /w/filelink
COPY file /absolute/
COPY file /absolute/one
COPY file /w/relative/two
COPY tree /w/relative/sub
COPY tree /w/climbing
COPY file /w/filelink
COPY file /w/relative/../three
COPY file /real/sub/../five
""",
        {"file": "file\n", "tree/x": "x\n", "tree/y/z": "z\n"},
    ),
    Case(
        "globs",
        r"""FROM base
COPY *.txt /star/
COPY ?.txt /question/
COPY [a-b].* /range/
COPY [^a-b].txt /others/
COPY \*.md /escaped/
COPY d* /directories/
COPY d*/*.txt /below/
COPY d1/*.txt /one/
COPY s*.conf /etc/name
COPY ["[[]x].txt", "/bracket/"]
COPY none*.txt a.txt /some/
COPY *.sh c.txt /mixed/
""",
        {
            "a.txt": "a",
            "b.txt": "b",
            "c.txt": "c",
            "long.txt": "long",
            "b.md": "bmd",
            "*.md": "star",
            "[x].txt": "bracket",
            "d1/one.txt": "1",
            "d1/sub/deep": "deep",
            "d2/two.txt": "2",
            "single.conf": "conf",
            "run.sh": program(""),
        },
    ),
    Case(
        "chown",
        """\
FROM base
COPY --chown=svc file /svc
COPY --chown=svc:other file /svc-other
COPY --chown=1234 file /number
COPY --chown=1234:77 file /numbers
COPY --chown=12 file /known-number
COPY --chown=root:svc tree /tree
COPY --chown=svc:svc file /made/parents/file
COPY --chown=svc:svc tree /made/tree/
COPY --chown=svc:svc tree/sub /tmp
COPY --chown=0:56 file other /usr/
WORKDIR /relative
COPY --chown=svc file here/
""",
        {
            "file": "file\n",
            "other": file("other\n", owner=(9, 9)),
            "tree/sub": directory(0o2755),
            "tree/sub/x": file("x", 0o600, owner=(3, 3)),
            "tree/link": symlink("sub"),
        },
    ),
    Case(
        "from a stage",
        """\
FROM base AS Build
RUN mkdir -p /out/sub && echo x >/out/sub/x && ln /out/sub/x /out/y && chmod 700 /out \\
    && chown 5:6 /out/sub && ln -s sub/x /out/link && mkdir /out/empty && chmod 2711 /out/sub \\
    && chmod 4711 /out/y
FROM base
COPY --from=build /out /out
COPY --from=build out/ /relative
COPY --from=Build /out/y /out/link /files/
COPY --from=0 /out/sub /number
COPY --from=build --chown=svc:svc /out /chowned
COPY --from=build /out/* /globbed/
COPY --from=build /bin/../out/sub/x /cleaned
COPY --from=0 /out/sub/../link /followed
""",
    ),
    Case(
        "from an image",
        """\
FROM scratch
COPY --from=base /kinds /kinds
COPY --from=base --chown=21:22 /kinds/capable /kinds/setuid /kinds/first /chowned/
COPY --from=base:latest /lib/modules /modules
COPY --from=base /lib/modules/one /through
COPY --from=base /etc /etc
""",
    ),
    Case(
        "relative to the working directory",
        """\
FROM base
WORKDIR /srv/app
COPY file .
COPY file ./
COPY file a
COPY file a-directory/
COPY file ../above
COPY file ../../../../far-above
USER svc
COPY file b/c/d
ENV WHERE=e/f
COPY file $WHERE/g
WORKDIR ../$WHERE
COPY file .
""",
        {"file": "file\n"},
    ),
    Case(
        "dockerignore",
        """\
FROM base
COPY . /all/
COPY docs /docs/
COPY src/*.c /c/
""",
        {
            ".dockerignore": """\
# a comment
*.log
**/*.tmp
/docs/**
!docs/README*
docs/README-secret.md
node_modules
 .git
build/
a?c
src/[a-b]*
!src/b.c
  spaced
.dockerignore
with\\*star
""",
            "x.log": "",
            "deep/x.log": "kept",
            "x.tmp": "",
            "deep/er/y.tmp": "",
            "docs/README.md": "kept",
            "docs/README-secret.md": "",
            "docs/other": "",
            "docs/sub/README": "",
            "node_modules/x/index.js": "",
            "deep/node_modules/x": "kept",
            ".git/config": "",
            "build/out": "",
            "abc": "",
            "abbc": "kept",
            "src/a.c": "",
            "src/b.c": "kept",
            "src/c.c": "kept",
            "spaced": "",
            "with*star": "",
            "without star": "kept",
        },
    ),
    Case(
        "dockerignore without exceptions, and the Dockerfile in it",
        "FROM base\nCOPY . /all\n",
        {
            ".dockerignore": "Dockerfile\n.dockerignore\n**\n!kept\n!*/kept\nkept/not\n",
            "kept/yes": "",
            "kept/not": "",
            "sub/kept/x": "",
            "gone": "",
        },
    ),
    Case(
        "odd names",
        """\
FROM base
COPY . /odd/
COPY ["new\\nline", "tab\\there", "/moved/"]
COPY -dash \\$dollar /moved/
COPY --chown=svc ☃ /☃/
""",
        {
            "new\nline": "1",
            "'quoted'": "2",
            '"double"': "3",
            "-dash": "4",
            "$dollar": "5",
            "☃": "6",
            "back\\slash": "7",
            "tab\there": "8",
            "n" * 200: "9",
            f"{'d' * 100}/{'e' * 100}/{'f' * 100}": "10",
            ".hidden": "11",
            " leading and trailing ": "12",
            "...": "13",
            "\udcff\udcfe bytes": "14",
        },
    ),
    Case(
        "steps that change nothing",
        """\
FROM base
COPY empty /tmp
COPY empty /usr/lib/
COPY file /file
COPY file /file
COPY empty /made
COPY empty /made
COPY tree /made
COPY tree /made
""",
        {"empty": directory(), "file": "", "tree/x": "x\n"},
        empty=(1, 2, 6),
    ),
    Case(
        "names with variables",
        """\
FROM base
ARG NAME=file
ENV TO=/there EXT=txt
COPY $NAME.$EXT ${TO}/
COPY ${NAME}.txt ${TO}/${NAME}-${EXT:-none}
COPY ["$NAME.txt", "$TO/json"]
ARG OWNER=svc
COPY --chown=$OWNER:${GROUP:-other} $NAME.txt /owned
ADD --chown=${OWNER} ${NAME}.txt /added
""",
        {"file.txt": "text\n"},
    ),
    Case(
        "the context's root by other names",
        """\
FROM base
COPY . /one/
COPY ./ /two
COPY / /three
COPY ./sub/.. /five
WORKDIR /six
COPY . .
""",
        {"sub/x": "x\n", "y": file("y\n", 0o640)},
    ),
]
