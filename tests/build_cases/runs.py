"""RUN, and stages."""

from __future__ import annotations

from build_cases.contexts import Case, program
from storagedrivers.oci.platforms import host_platform

_HERE = f"linux/{host_platform().architecture}"

CASES = [
    Case(
        "RUN in every form",
        r"""FROM base
RUN echo "$A" 'b' \
    "c  d" > /one && cd /tmp && pwd >> /one
RUN pwd > /two
RUN ["/bin/sh", "-c", "echo \"json $0\" > /three", "zero"]
RUN ["touch", "/four", "/with space", "$HOME"]
RUN [ "echo" ] > /five || true
RUN a=1; for i in 1 2 3; do a=$((a*i)); done; echo $a | cat >/six
RUN if [ -e /six ]; then \
      echo yes; \
    else \
      echo no; \
    fi > /seven
""",
    ),
    Case(
        "RUN changes every kind of file",
        """\
FROM base
COPY tree /tree
RUN cd /tree && rm a && rm -r gone && chmod 4711 setuid && chown 5:6 owned \\
    && mv moved elsewhere && ln linked sub/hard && ln -s linked sub/soft \\
    && mkfifo -m 640 pipe && mkdir -p new/deep && echo more >>grows && rm -r file \\
    && mkdir file && rm dir/x && rmdir dir && touch dir
RUN cd /kinds && chmod 700 sticky && rm second link && echo x >>capable && mv setgid moved \\
    && chgrp 9 ../var/pipe
RUN rm -r /tree/sub /kinds/moved && mkdir /tree/sub && touch /tree/sub/anew
RUN umask >/umask && umask 077 && touch /private && mkdir /private-directory
""",
        {
            **{f"tree/{name}": name for name in ("a", "gone/x", "gone/y", "owned", "moved")},
            **{f"tree/{name}": name for name in ("linked", "sub/x", "grows", "file/x", "dir/x")},
            "tree/setuid": program("s"),
        },
    ),
    Case(
        "RUN that changes nothing",
        """\
FROM base
RUN true
RUN cat /etc/passwd >/dev/null; ls -R / >/dev/null 2>&1; echo seen
RUN touch /tmp/x && rm /tmp/x
RUN touch /made
RUN :
""",
    ),
    Case(
        "RUN leaves no trace",
        """\
FROM base AS made
RUN echo x >/dev/shm/x; echo y >/dev/y 2>/dev/null; \\
    cat /etc/hosts /etc/resolv.conf /proc/mounts >/dev/null; touch /run-was-here
FROM scratch
COPY --from=base /bin /bin
COPY --from=base /lib /lib
COPY --from=base /lib6* /lib64/
RUN echo one >/one
RUN ls / >/listed; ls /etc >>/listed
""",
    ),
    Case(
        "RUN and its surroundings",
        """\
FROM base
ENV A=b
ARG C=d
WORKDIR /where
RUN env | grep -vE '^(HOSTNAME|SHLVL|_)=' | sort >/env; id >/id; pwd >/pwd; ulimit -c >/core; \\
    umask >>/core
RUN grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status >/status; \\
    readlink /proc/self/fd/0 >/stdin; ls /dev | grep -vE 'console|core' | sort >/dev.list
RUN cat && echo nothing to read >/read
RUN sleep 1000 >/dev/null 2>&1 &
RUN ps | grep -c [s]leep >/ps || true
""",
    ),
    Case(
        "a program of one stage in another",
        """\
FROM base AS build
WORKDIR /src
COPY main.c Makefile ./
RUN sed -n 's/.*"\\(.*\\)".*/\\1/p' main.c >text && mkdir -p out/bin \\
    && printf '#!/bin/sh\\necho "%s"\\n' "$(cat text)" >out/bin/hello \\
    && chmod 755 out/bin/hello
FROM scratch
COPY --from=build /src/out/bin/hello /hello
ENTRYPOINT ["/hello"]
""",
        {"main.c": 'int main() { puts("hello"); }\n', "Makefile": "all: hello\n"},
    ),
    Case(
        "stages upon stages",
        """\
ARG BASE=base
FROM ${BASE} AS common
ENV STAGE=common
RUN mkdir /out && echo common >/out/common
FROM common AS left
ENV STAGE=left
RUN echo $STAGE >/out/left
FROM common AS right
RUN echo $STAGE >/out/right
FROM left AS both
COPY --from=right /out/right /out/
COPY --from=2 /out/common /out/again
FROM scratch
COPY --from=both /out /
COPY --from=LEFT /out/left /left-again
""",
    ),
    Case(
        "a target in the middle",
        """\
FROM base AS first
RUN echo 1 >/1
FROM first AS Middle
RUN echo 2 >/2
LABEL which=middle
FROM first
RUN exit 1
""",
        labels={"given": "1"},
        target="middle",
    ),
    Case(
        "platforms",
        f"""\
ARG WHERE={_HERE}
FROM --platform={_HERE} base AS one
RUN touch /one
FROM --platform=$WHERE base
COPY --from=one /one /
""",
    ),
]
