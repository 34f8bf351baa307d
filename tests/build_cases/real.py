"""Dockerfiles of the shapes that people have, with stand-ins for what would need a network."""

from __future__ import annotations

import archives

from build_cases.contexts import TIME, Case, directory, file, program, symlink, tar, tar_of

_APT = """\
#!/bin/sh -e
# Knows update, install and clean; packages are directories below /usr/share/packages.
state=/var/lib/apt
case $1 in
update) mkdir -p $state/lists/partial; ls /usr/share/packages >$state/lists/main ;;
install)
    shift
    mkdir -p /var/lib/dpkg/info /var/cache/apt/archives
    for name; do
        case $name in -*) continue ;; esac
        grep -qx "$name" $state/lists/main
        cp -R /usr/share/packages/$name/. /
        (cd /usr/share/packages/$name && find . -type f) >/var/lib/dpkg/info/$name.list
        printf 'Package: %s\\nStatus: install ok installed\\n\\n' $name >>/var/lib/dpkg/status
        echo $name >/var/cache/apt/archives/$name.deb
    done ;;
purge)
    cd /var/lib/dpkg/info
    shift
    for name; do sed 's,^,/,' $name.list | xargs rm; rm $name.list; done ;;
clean) rm -f /var/cache/apt/archives/*.deb ;;
esac
"""

_PIP = """\
#!/bin/sh -e
# pip install [--no-cache-dir] -r FILE, from wheels that are tars
site=$(dirname $0)/../lib/python3/site-packages
mkdir -p $site
while [ $# -gt 0 ]; do case $1 in -r) list=$2; shift ;; esac; shift; done
sed 's/#.*//; s/==/-/; /^$/d' $list | while read -r name; do
    tar -xzf /wheels/$name.tar.gz -C $site
    mkdir -p $site/$name.dist-info && echo pip >$site/$name.dist-info/INSTALLER
done
"""

_NODE_MODULES = {
    "node_modules/left-pad/index.js": "module.exports = 1\n",
    "node_modules/left-pad/package.json": "{}\n",
    "node_modules/.bin/tool": symlink("../tool/cli.js"),
    "node_modules/tool/cli.js": program("#!/usr/bin/env node\n"),
    "node_modules/@scope/deep/node_modules/left-pad/index.js": "module.exports = 2\n",
}

CASES = [
    Case(
        "an application in Python",
        """\
# syntax=docker/dockerfile:1
ARG PYTHON=base
FROM ${PYTHON} AS builder
ENV PYTHONDONTWRITEBYTECODE=1 \\
    PIP_NO_CACHE_DIR=off
COPY wheels /wheels
COPY pip /venv/bin/
RUN ln -s /bin/busybox /venv/bin/python3 \\
 && ln -s python3 /venv/bin/python \\
 && printf 'home = /usr/bin\\nversion = 3.11\\n' > /venv/pyvenv.cfg
COPY requirements.txt .
RUN /venv/bin/pip install --no-cache-dir -r requirements.txt

FROM ${PYTHON}
LABEL org.opencontainers.image.title="shop" \\
      org.opencontainers.image.licenses="MIT"
RUN echo app:x:1000: >>/etc/group && echo app:x:1000:1000::/app:/bin/sh >>/etc/passwd
WORKDIR /app
COPY --from=builder /venv /venv
ENV PATH="/venv/bin:$PATH" \\
    VIRTUAL_ENV=/venv
COPY --chown=app:app . .
USER app
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=3s CMD ["python", "-c", "import shop"]
ENTRYPOINT ["gunicorn"]
CMD ["--bind", "0.0.0.0:8000", "shop.wsgi"]
""",
        {
            ".dockerignore": "**/__pycache__\n*.pyc\n.git\n.venv\nwheels\n!wheels/*.gz\n",
            "requirements.txt": "# the shop\nflask==2.0\nrequests==1.1 # pinned\n",
            "wheels/flask-2.0.tar.gz": tar_of("gz", flask____init__="import this\n"),
            "wheels/requests-1.1.tar.gz": tar_of("gz", requests__api="get = 1\n"),
            "wheels/README": "not sent\n",
            "pip": program(_PIP),
            "shop/__init__.py": "",
            "shop/wsgi.py": "app = 1\n",
            "shop/__pycache__/wsgi.cpython-311.pyc": "x",
            "shop/static/site.css": "b{}\n",
            "manage.py": program("#!/usr/bin/env python\n"),
            ".git/HEAD": "ref\n",
            ".venv/bin/python": symlink("/usr/bin/python3"),
        },
    ),
    Case(
        "an application for Node",
        """\
FROM base AS deps
WORKDIR /usr/src/app
COPY package*.json ./
ADD node_modules.tar.gz .
RUN test -f package-lock.json && rm -rf node_modules/tool/test

FROM base AS build
WORKDIR /usr/src/app
COPY --from=deps /usr/src/app/node_modules ./node_modules
COPY . .
RUN mkdir -p dist && cat src/*.js > dist/bundle.js && rm -rf node_modules/left-pad

FROM base
ENV NODE_ENV=production
WORKDIR /usr/src/app
RUN chown svc:svc .
USER svc
COPY --from=deps --chown=svc:svc /usr/src/app/node_modules node_modules
COPY --from=build --chown=svc:svc /usr/src/app/dist/ dist/
COPY --chown=svc:svc package.json .
EXPOSE 3000
CMD [ "node", "dist/bundle.js" ]
""",
        {
            ".dockerignore": "node_modules\nnpm-debug.log*\n",
            "package.json": '{"name": "x"}\n',
            "package-lock.json": "{}\n",
            "node_modules.tar.gz": tar(
                archives.file(b"node_modules/left-pad/index.js", b"1\n", mtime=TIME),
                archives.symlink(b"node_modules/.bin/tool", b"../tool/cli.js", mtime=TIME),
                archives.file(b"node_modules/tool/cli.js", b"#!\n", mode=0o755, mtime=TIME),
                archives.file(b"node_modules/tool/test/x.js", b"t\n", mtime=TIME),
                archives.file(b"node_modules/@scope/a/package.json", b"{}\n", uid=1000, mtime=TIME),
                compression="gz",
            ),
            "npm-debug.log.1": "x",
            "src/a.js": "a()\n",
            "src/b.js": "b()\n",
            **_NODE_MODULES,
        },
    ),
    Case(
        "node_modules are copied as they are",
        "FROM base\nWORKDIR /app\nCOPY . ./\nRUN chmod -R a-w node_modules\n",
        _NODE_MODULES,
    ),
    Case(
        "a web server",
        """\
FROM base
MAINTAINER Web Team <web@example.org>
RUN echo nginx:x:101: >>/etc/group \\
    && echo 'nginx:x:101:101:nginx user:/var/cache/nginx:/bin/false' >>/etc/passwd \\
    && mkdir -p /etc/nginx/conf.d /var/cache/nginx/client_temp /var/log/nginx \\
    && ln -sf /dev/stdout /var/log/nginx/access.log \\
    && ln -sf /dev/stderr /var/log/nginx/error.log
COPY nginx.conf /etc/nginx/nginx.conf
COPY conf.d/*.conf /etc/nginx/conf.d/
COPY html /var/www/html
RUN chown -R nginx:nginx /var/www/html /var/cache/nginx && chmod -R o-rwx /var/www/html \\
    && touch /var/run.pid && chown nginx /var/run.pid
VOLUME ["/var/cache/nginx", "/var/www/html/uploads"]
EXPOSE 80 443
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=10s --retries=3 CMD wget -qO- http://127.0.0.1/ || exit 1
USER nginx
CMD ["nginx", "-g", "daemon off;"]
""",
        {
            "nginx.conf": "worker_processes 1;\n",
            "conf.d/default.conf": "server {}\n",
            "conf.d/ssl.conf": file("ssl;\n", 0o640),
            "conf.d/README": "",
            "html/index.html": "<h1>\n",
            "html/img/logo.svg": "<svg/>\n",
            "html/uploads": directory(0o777),
        },
    ),
    Case(
        "a database with an entry point",
        """\
FROM base
RUN set -eux; \\
	echo postgres:x:70: >>/etc/group; \\
	echo postgres:x:70:70::/var/lib/postgresql:/bin/sh >>/etc/passwd; \\
	mkdir -p /var/lib/postgresql; \\
	chown -R postgres:postgres /var/lib/postgresql
RUN mkdir /docker-entrypoint-initdb.d
ENV LANG en_US.utf8
ENV PG_MAJOR 15
ENV PG_VERSION $PG_MAJOR.4
ENV PGDATA /var/lib/postgresql/data
# this 1777 will be replaced by 0700 at runtime
RUN mkdir -p /var/run/postgresql "$PGDATA" \\
    && chown -R postgres:postgres /var/run/postgresql "$PGDATA" && chmod 1777 "$PGDATA"
VOLUME /var/lib/postgresql/data
COPY docker-entrypoint.sh /usr/local/bin/
COPY init/* /docker-entrypoint-initdb.d/
RUN ln -s usr/local/bin/docker-entrypoint.sh / # backwards compat
ENTRYPOINT ["docker-entrypoint.sh"]
STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["postgres"]
""",
        {
            "docker-entrypoint.sh": program('#!/bin/sh\nset -e\nexec "$@"\n'),
            "init/01.sql": "create;\n",
            "init/02.sh": program("#!/bin/sh\n"),
        },
    ),
    Case(
        "packages on a distribution",
        """\
FROM base AS distribution
COPY apt-get /usr/bin/
COPY packages /usr/share/packages
FROM distribution
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --no-install-recommends \\
        ca-certificates \\
        curl \\
    # only to build with
        gcc \\
    && rm -rf /var/lib/apt/lists/*
COPY hello.c /usr/src/
RUN gcc -o /usr/local/bin/hello /usr/src/hello.c \\
    && apt-get purge gcc && apt-get clean && rm /usr/src/hello.c
RUN apt-get update \\
 && apt-get install -y tzdata \\
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives
ENV TZ=Etc/UTC
RUN ln -snf /usr/share/zoneinfo/$TZ /etc/localtime && echo $TZ > /etc/timezone
CMD ["hello"]
""",
        {
            "apt-get": program(_APT),
            "packages/ca-certificates/etc/ssl/certs/a.pem": "a\n",
            "packages/ca-certificates/etc/ssl/certs/0a.0": symlink("a.pem"),
            "packages/curl/usr/bin/curl": program("#!/bin/sh\n"),
            "packages/gcc/usr/bin/gcc": program('#!/bin/sh\ncp "$3" "$2" && chmod 755 "$2"\n'),
            "packages/tzdata/usr/share/zoneinfo/Etc/UTC": "UTC\n",
            "hello.c": "#!/bin/sh\necho hello\n",
        },
    ),
    Case(
        "a static program without root",
        """\
FROM base AS build
ARG VERSION=dev
ARG LDFLAGS="-s -w -X main.version=${VERSION}"
WORKDIR /go/src/app
COPY go.mod go.sum ./
COPY cmd cmd
COPY internal internal
RUN echo "$LDFLAGS" >/go/app && chmod 755 /go/app && mkdir -m 1777 /empty \\
 && echo 'nobody:x:65534:65534:nobody:/:' >/etc/passwd.minimal
FROM scratch
ARG VERSION
LABEL version=$VERSION
COPY --from=build /etc/passwd.minimal /etc/passwd
COPY --from=build /empty /tmp
COPY --from=build /go/app /app
USER 65534:65534
ENTRYPOINT ["/app"]
""",
        {
            "go.mod": "module x\n",
            "go.sum": "",
            "cmd/app/main.go": "package main\n",
            "internal/x.go": "package internal\n",
            "README.md": "",
        },
        build_args={"VERSION": "1.2.3"},
    ),
    Case(
        "an application in Java",
        """\
FROM base as builder
WORKDIR application
ARG JAR_FILE=target/*.jar
COPY ${JAR_FILE} application.jar
RUN for layer in dependencies loader application; do mkdir -p $layer/BOOT; \\
    tar -xf application.jar -C $layer $layer.txt; done

FROM base
VOLUME /tmp
WORKDIR application
COPY --from=builder application/dependencies/ ./
COPY --from=builder application/loader/ ./
COPY --from=builder application/application/ ./
ENV JAVA_OPTS=""
ENTRYPOINT exec java $JAVA_OPTS -cp /application Main
""",
        {
            "target/app-1.0.jar": tar_of(
                **{
                    "dependencies.txt": "d\n",
                    "loader.txt": "l\n",
                    "application.txt": "a\n",
                }
            ),
            "target/classes/Main.class": "",
        },
    ),
    Case(
        "a supervisor from an archive",
        """\
FROM base
ARG S6_VERSION=3.1
ADD s6-overlay-${S6_VERSION}.tar.xz /
ADD https.tar.gz /etc/services.d/
COPY rootfs/ /
RUN chmod +x /etc/services.d/*/run && mkdir -p /config && chown svc:svc /config
VOLUME /config
ENTRYPOINT ["/init"]
""",
        {
            "s6-overlay-3.1.tar.xz": tar(
                archives.directory(b"./", mode=0o755, mtime=TIME),
                archives.file(b"./init", b"#!/bin/sh\n", mode=0o755, mtime=TIME),
                archives.directory(b"./usr/", mtime=TIME),
                archives.directory(b"./usr/bin/", mtime=TIME),
                archives.symlink(b"./usr/bin/with-contenv", b"../../init", mtime=TIME),
                archives.directory(b"./etc/services.d/", mode=0o750, gid=34, mtime=TIME),
                compression="xz",
            ),
            "https.tar.gz": tar_of("gz", https__run="#!/bin/sh\n"),
            "rootfs/etc/services.d/cron/run": "#!/bin/sh\n",
            "rootfs/etc/cont-init.d/10-users": program("#!/bin/sh\n"),
        },
    ),
    Case(
        "an image for others to build on",
        """\
FROM base AS onbuild
RUN mkdir -p /usr/src/app
WORKDIR /usr/src/app
ONBUILD COPY requirements.txt /usr/src/app/
ONBUILD RUN sort requirements.txt >installed
ONBUILD COPY . /usr/src/app
FROM onbuild
EXPOSE 5000
CMD [ "python", "./app.py" ]
""",
        {"requirements.txt": "b\na\n", "app.py": "print(1)\n", "lib/x.py": "x\n"},
    ),
]
