"""What changes an image's config, and how a Dockerfile is written."""

from __future__ import annotations

from build_cases.contexts import Case

CASES = [
    Case(
        "ENV in every form",
        r"""FROM base
ENV A=1
ENV B two words
ENV C=3 D="four and 4" E='fi $A ve' F=six\ and\ 6
ENV G="a\"b" H=a\"b I='a\b' J="x\ty\\z"
ENV K=$A L=${A}${B} M="${C}-$D" N='$A' O=\$A P="\$A"
ENV A=new Q=$A
ENV R=$A
ENV S= T="" U=$UNSET V=${UNSET}x
ENV PATH=/opt/bin:$PATH
ENV W   spaced   out
ENV X one \
  two
ENV Y=1 \
    Z=2 \
    # a comment between
    AA=3
ENV from_base=$FROM_BASE FROM_BASE=changed
ENV equal=a=b=c empty='' with.dot=1 with-dash=2
ENV quoted "a  b"
RUN echo "$A|$B|$D|$E|$F|$I|$J|$PATH|$X" >/seen
""",
    ),
    Case(
        "LABEL in every form",
        r"""FROM base
LABEL a=1
LABEL b two words
LABEL "c d"="e f" g='h i' j=k\ l
LABEL org.example.description="a long \
text" version="1.0"
ENV V=3
LABEL v=$V w="${V}" x='${V}' y=${U:-default} from=changed
LABEL "$V"=key
LABEL empty= also=""
LABEL json="{\"a\": [1, \"<b>\", '&']}"
""",
        labels={"one": "1", "two": "with space", "a": "of the command line", "uni": "é☃"},
    ),
    Case(
        "substitution",
        r"""FROM base
ENV a=set e=
ENV r1=${a:-word} r2=${e:-word} r3=${u:-word} r4=${a:+word} r5=${e:+word} r6=${u:+word}
ENV r7=${u:-$a} r8=${u:-${a}} r9=${u:-"q w"} r10=${a}${u}x r11=$a$u-x r12=$$ r13=${a:?no}
ENV r14=pre${a}post r15="$a'$a'" r16='"$a"' r17=\${a} r18=$a_b r19=${u:-a:b/c} r20=$1
WORKDIR /${a}/$u/x
EXPOSE 80${u:-80}
USER ${u:-svc}
VOLUME /v/$a ["/j"]
STOPSIGNAL SIG${u:-TERM}
LABEL $a=${a} l-${a}="${u:+no}"
CMD echo $a
ENTRYPOINT ["$a"]
""",
    ),
    Case(
        "ARG and its scopes",
        """\
ARG TAG=latest
ARG UNUSED
ARG NAME=base
FROM $NAME:${TAG} AS one
RUN echo "1 tag=$TAG name=$NAME" >/one
ARG TAG
ARG NAME=inner
ARG given
ARG defaulted=d
ARG with_quotes="a b"
ARG from_env=$FROM_BASE
ENV copied=$given-$defaulted-$with_quotes-$from_env-$TAG-$NAME
RUN echo "2 tag=$TAG name=$NAME given=$given" >/two
ENV given=env
ARG given=arg
RUN echo "3 given=$given" >/three
ARG defaulted
RUN echo "4 defaulted=$defaulted" >/four
FROM one
RUN echo "5 defaulted=$defaulted given=$given" >/five
ARG given
ARG nothing
RUN echo "6 given=$given nothing=$nothing" >/six
""",
        build_args={"given": "from outside", "nothing": ""},
    ),
    Case(
        "ARG that are predefined",
        """\
FROM base
RUN echo "$HTTP_PROXY $no_proxy $FTP_PROXY" >/one
ARG HTTP_PROXY
ARG OTHER=o
RUN echo "$HTTP_PROXY $no_proxy" >/two
ENV proxy=$HTTP_PROXY undeclared=$no_proxy
LABEL proxy=$HTTPS_PROXY
""",
        build_args={
            "HTTP_PROXY": "http://user:secret@proxy:1",
            "no_proxy": "localhost",
            "HTTPS_PROXY": "h",
        },
    ),
    Case(
        "EXPOSE",
        """\
FROM base
EXPOSE 80
EXPOSE 443/tcp 53/udp 53/tcp 80
EXPOSE 8000-8003 9/UDP 7-8/sctp
ENV PORT=3000
EXPOSE $PORT ${PORT}/udp
""",
    ),
    Case(
        "VOLUME",
        """\
FROM base
RUN mkdir -p /data /kept && echo before >/data/before && chown svc /data
VOLUME /data
VOLUME ["/json", "/with space"]
VOLUME /a /b   /c/d
RUN echo lost >/data/after; echo lost >/json/lost; echo kept >/kept/file; ls /data >/seen
COPY file /data/copied
COPY file /json/copied
ADD file /missing/added
WORKDIR /data/sub
RUN rm -f /data/before
""",
        {"file": "file\n"},
    ),
    Case(
        "CMD and ENTRYPOINT",
        """\
FROM base AS shell
CMD echo "hello   world" && $HOME \\
  more
FROM base AS exec
CMD ["echo", "a b", "$HOME", "<&>", "é"]
ENTRYPOINT ["/bin/sh", "-c"]
FROM exec
ENTRYPOINT exec top -b
CMD ["not json]
CMD   [ "spaced" ,  "out" ]
ENTRYPOINT []
CMD []
CMD last
""",
    ),
    Case(
        "ENTRYPOINT resets the CMD of the base",
        'FROM base\nENTRYPOINT ["/bin/echo"]\nLABEL a=b\n',
    ),
    Case(
        "CMD before ENTRYPOINT stays",
        'FROM base\nCMD ["x"]\nENTRYPOINT ["/bin/echo"]\n',
    ),
    Case(
        "HEALTHCHECK",
        """\
FROM base AS none
HEALTHCHECK NONE
FROM none AS shell
HEALTHCHECK CMD wget -q http://localhost/ || exit 1
FROM shell
HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=2h --retries=5 CMD ["test", "-f", "/x"]
""",
    ),
    Case(
        "HEALTHCHECK in the shell form",
        "FROM base\nHEALTHCHECK --interval=5s CMD test -f /x &&  echo 'a b'\n",
    ),
    Case(
        "ONBUILD",
        """\
FROM base AS parent
ONBUILD COPY file /triggered/
ONBUILD RUN cat /triggered/file >/triggered/ran
ONBUILD ENV TRIGGERED=$FROM_BASE
ONBUILD   workdir   /triggered
ONBUILD LABEL a=b c="d e"
ONBUILD CMD ["x"]
RUN test ! -e /triggered
FROM parent AS child
RUN pwd >/where
FROM child
LABEL last=1
""",
        {"file": "file\n"},
    ),
    Case(
        "ONBUILD stays in the image",
        'FROM base\nONBUILD ADD . /app\nONBUILD RUN make \\\n all\nONBUILD ENTRYPOINT ["a", "b"]\n',
    ),
    Case(
        "SHELL",
        """\
FROM base
RUN echo $0 >/one
SHELL ["/bin/sh", "-e", "-c"]
RUN true; echo $0 >/two || true
RUN echo $- >/flags
COPY file /
ENV A=b
CMD run me
ENTRYPOINT also me
HEALTHCHECK CMD check
""",
        {"file": ""},
    ),
    Case(
        "STOPSIGNAL",
        "FROM base\nSTOPSIGNAL SIGQUIT\nENV SIGNAL=9\nSTOPSIGNAL $SIGNAL\nSTOPSIGNAL SIGRTMIN+3\n",
    ),
    Case(
        "USER and who runs",
        """\
FROM base
RUN mkdir -m 777 /w
USER svc
RUN id >/w/1; echo $HOME >>/w/1; touch /w/f1
WORKDIR /w/made/by
USER svc:other
RUN id >/w/2
USER 1234
RUN id >/w/3; echo $HOME >>/w/3
USER 1234:77
RUN id >/w/4
USER homeless
RUN id >/w/5; echo $HOME >>/w/5
COPY file /w/copied
USER 0
RUN id >/w/6; echo $HOME >>/w/6
ENV HOME=/elsewhere
RUN echo $HOME >>/w/6
USER svc
""",
        {"file": ""},
    ),
    Case(
        "WORKDIR",
        """\
FROM base
WORKDIR /usr/lib
WORKDIR /new/directories
WORKDIR relative
WORKDIR ../other
WORKDIR /home/svc
USER svc
WORKDIR made-by-whom
WORKDIR "/quoted dir"
WORKDIR /with blanks/in  it
ENV D=/from/env
WORKDIR $D/x
RUN pwd >/tmp/where
WORKDIR /
WORKDIR a/./b//c/
WORKDIR /lib/modules
WORKDIR /lib/modules/below
""",
    ),
    Case(
        "MAINTAINER",
        "FROM base AS one\nMAINTAINER First <first@example.org>\nFROM one\nLABEL a=b\n"
        'MAINTAINER   "Second"   Author  \nRUN touch /x\n',
    ),
    Case(
        "another escape character",
        """\
# escape=`
FROM base
ENV A=back\\slash B=tick`"x C="q`"r" `
    D=continued
COPY a\\b /c\\d/
RUN echo "one" `
    && echo 'two' >/seen
WORKDIR /w\\x
""",
        {"a\\b": "", "a": "", "ab": ""},
    ),
    Case(
        "how it may be written",
        b"# syntax=docker/dockerfile:1\n# Escape=\\\n\n\n   # a comment\n\tfrom base as Stage\r\n"
        b"run echo one \\\r\n  && echo two \\\n# in between\n\n   # indented\n  >/both\n"
        b"EnV A=1   \n  env  B=2\t\nRUN   echo   spaced   >/x  \n"
        b"LABEL a=b\nCMD echo # part of it\n"
        b"RUN echo a \\  \n  b >/blanks\nRUN echo 'x \\\ny' >/quoted\n\n\n",
    ),
    Case(
        "a byte order mark, and no newline at the end",
        b'\xef\xbb\xbfFROM base\nENV A=1\nCMD ["x"]',
    ),
    Case(
        "nothing but settings",
        "FROM scratch\nLABEL a=b\nENV C=d\nEXPOSE 1\nCMD /x\n",
    ),
    Case(
        "a Dockerfile elsewhere, and its name",
        "FROM base\nCOPY . /all\n",
        {"x": "x", "Dockerfile": "FROM nowhere\n", ".dockerignore": "docker/app*\n"},
        file="docker/app.Dockerfile",
    ),
    Case(
        "commands that a base has",
        """\
FROM base AS parent
EXPOSE 1
VOLUME /v
LABEL l=parent k=parent
ENV E=parent
USER svc
WORKDIR /w
STOPSIGNAL 5
HEALTHCHECK CMD x
ENTRYPOINT ["e"]
CMD ["c"]
MAINTAINER m
SHELL ["/bin/sh", "-ec"]
FROM parent
EXPOSE 2
VOLUME /v2
LABEL l=child
ENV E=child F=$E
RUN echo "$E $F $(id -u) $(pwd)" >/tmp/x
CMD d
""",
    ),
]
