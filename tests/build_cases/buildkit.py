"""What the classic builder does not know: what comes of it is written down here."""

from __future__ import annotations

from build_cases.contexts import Case, program

CASES = [
    Case(
        "heredocs that run",
        """\
FROM base
ENV A=b
RUN <<EOF
set -e
mkdir /w
echo "$A" >/w/one
echo 'two
lines' >/w/two
EOF
RUN <<-TABS
	echo "tabs $A" >/w/three
	TABS
RUN <<'RAW' cat >/w/four
$A stays
RAW
RUN cat <<EOF >/w/five
expanded by the shell: $A
EOF
RUN <<SCRIPT
#!/bin/sh -e
echo "$0" | grep -q / && echo a script >/w/six
SCRIPT
RUN cat <<ONE - <<TWO >/w/seven
1
ONE
2
TWO
""",
        tree="""\
drwxr-xr-x 0:0 /w
-rw-r--r-- 0:0 /w/five 'expanded by the shell: b\\n'
-rw-r--r-- 0:0 /w/four '$A stays\\n'
-rw-r--r-- 0:0 /w/one 'b\\n'
-rw-r--r-- 0:0 /w/seven '2\\n'
-rw-r--r-- 0:0 /w/six 'a script\\n'
-rw-r--r-- 0:0 /w/three 'tabs b\\n'
-rw-r--r-- 0:0 /w/two 'two\\nlines\\n'
""",
    ),
    Case(
        "heredocs that are files",
        """\
FROM base
ENV A=b
COPY <<EOF /w/expanded
$A and ${A}
EOF
COPY <<"EOF" /w/raw
$A and ${A}
EOF
COPY --chown=svc:svc --chmod=755 <<one.sh <<two.txt /w/many/
#!/bin/sh
one.sh
	two
two.txt
COPY file <<-inline /w/mixed/
	without tabs
	inline
ADD --chmod=0600 <<EOF /w/added
added
EOF
""",
        {"file": "file\n"},
        tree="""\
drwxr-xr-x 0:0 /w
-rw------- 0:0 /w/added 'added\\n'
-rw-r--r-- 0:0 /w/expanded 'b and b\\n'
drwxr-xr-x 12:34 /w/many
-rwxr-xr-x 12:34 /w/many/one.sh '#!/bin/sh\\n'
-rwxr-xr-x 12:34 /w/many/two.txt '\\ttwo\\n'
drwxr-xr-x 0:0 /w/mixed
-rw-r--r-- 0:0 /w/mixed/file 'file\\n'
-rw-r--r-- 0:0 /w/mixed/inline 'without tabs\\n'
-rw-r--r-- 0:0 /w/raw '$A and ${A}\\n'
""",
    ),
    Case(
        "COPY --chmod and --link",
        """\
FROM base AS other
RUN mkdir -m 711 /o && echo x >/o/x && chmod 640 /o/x
FROM base
COPY --chmod=644 tree /w/
COPY --chmod=4750 run.sh /w/run
COPY --chmod=700 --chown=12:34 run.sh /w/owned
COPY --link run.sh /w/linked/
COPY --link --from=other /o /w/other
COPY --from=other --chmod=600 /o/x /w/changed
ADD --link --chmod=755 tree/x /w/added
""",
        {"tree/x": "x\n", "tree/sub/y": program("y\n"), "run.sh": program("#!/bin/sh\n")},
        tree="""\
drwxr-xr-x 0:0 /w
-rwxr-xr-x 0:0 /w/added 'x\\n'
-rw------- 0:0 /w/changed 'x\\n'
drwxr-xr-x 0:0 /w/linked
-rwxr-xr-x 0:0 /w/linked/run.sh '#!/bin/sh\\n'
drwxr-xr-x 0:0 /w/other
-rw-r----- 0:0 /w/other/x 'x\\n'
-rwx------ 12:34 /w/owned '#!/bin/sh\\n'
-rwsr-x--- 0:0 /w/run '#!/bin/sh\\n'
drw-r--r-- 0:0 /w/sub
-rw-r--r-- 0:0 /w/sub/y 'y\\n'
-rw-r--r-- 0:0 /w/x 'x\\n'
""",
    ),
    Case(
        "mounts of a RUN",
        """\
FROM base AS other
RUN mkdir /o && echo of a stage >/o/x
FROM base
WORKDIR /w
RUN --mount=type=bind,source=tree,target=/in cp /in/x one && ! touch /in/y
RUN --mount=type=bind,from=other,source=/o,target=/in,rw cp /in/x two && echo lost >/in/lost
RUN --mount=from=other,src=/o/x,dst=/a/file cp /a/file three
RUN --mount=target=. test -f tree/x && echo "the context" >/tmp/four
RUN --mount=type=cache,target=/cache echo "$(ls /cache)" >five && echo kept >/cache/kept
RUN --mount=type=cache,target=/cache,ro ls /cache >six
RUN --mount=type=cache,id=own,target=/cache,uid=12,gid=34,mode=0750 stat -c '%u:%g %a' /cache >seven
RUN --mount=type=tmpfs,target=/tmpfs,size=1m echo lost >/tmpfs/lost && ls /tmpfs >eight
RUN --mount=type=bind,from=base,source=/etc,target=/e cut -d: -f1 /e/group | head -n 1 >nine
RUN --network=none ls /sys/class/net >ten
RUN --mount=type=tmpfs,target=/a --mount=type=bind,source=tree/x,target=/a/b cat /a/b >eleven
""",
        {"tree/x": "x\n"},
        tree="""\
-rw-r--r-- 0:0 /tmp/four 'the context\\n'
drwxr-xr-x 0:0 /w
-rw-r--r-- 0:0 /w/eight 'lost\\n'
-rw-r--r-- 0:0 /w/eleven 'x\\n'
-rw-r--r-- 0:0 /w/five '\\n'
-rw-r--r-- 0:0 /w/nine 'root\\n'
-rw-r--r-- 0:0 /w/one 'x\\n'
-rw-r--r-- 0:0 /w/seven '12:34 750\\n'
-rw-r--r-- 0:0 /w/six 'kept\\n'
-rw-r--r-- 0:0 /w/ten 'lo\\n'
-rw-r--r-- 0:0 /w/three 'of a stage\\n'
-rw-r--r-- 0:0 /w/two 'of a stage\\n'
""",
    ),
    Case(
        "a Dockerfile with its own ignore file",
        "FROM base\nCOPY . /w/\n",
        {
            "docker/a.Dockerfile.dockerignore": "x\ndocker\n",
            ".dockerignore": "y\n",
            "x": "x",
            "y": "y",
        },
        file="docker/a.Dockerfile",
        tree="""\
drwxr-xr-x 0:0 /w
-rw-r--r-- 0:0 /w/.dockerignore 'y\\n'
-rw-r--r-- 0:0 /w/y 'y'
""",
    ),
    Case(
        "stages that nothing needs",
        """\
FROM base AS broken
RUN exit 1
FROM nowhere AS missing
FROM base
RUN echo x >/w
""",
        tree="-rw-r--r-- 0:0 /w 'x\\n'\n",
    ),
]
