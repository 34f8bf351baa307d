"""Dockerfiles in the shapes that people write them: for languages, services, bases, tools."""

from __future__ import annotations

SAMPLES = {
    "go": r"""
# syntax=docker/dockerfile:1
ARG GO_VERSION=1.22
FROM --platform=$BUILDPLATFORM golang:${GO_VERSION}-alpine AS build
ARG TARGETOS TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod \
    go mod download
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags="-s -w -X main.version=${VERSION:-dev}" -o /out/app ./cmd/app

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /out/app /app
USER 65532:65532
EXPOSE 8080/tcp 9090
ENTRYPOINT ["/app"]
CMD ["--listen", ":8080"]
""",
    "python": r"""
FROM python:3.12-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=off \
    # a comment in the middle
    PATH="/opt/venv/bin:$PATH"

FROM base AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential libpq-dev \
 && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/venv
COPY requirements*.txt /tmp/
RUN pip install -r /tmp/requirements.txt

FROM base
LABEL org.opencontainers.image.title="web" \
      org.opencontainers.image.description='An application, "quoted"' \
      org.opencontainers.image.licenses=MIT
RUN groupadd -r app && useradd -r -g app -d /app app
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
COPY --chown=app:app . .
USER app
HEALTHCHECK --interval=30s --timeout=3s --retries=3 \
  CMD python -c "import urllib.request as u; u.urlopen('http://localhost:8000/health')" || exit 1
EXPOSE 8000
CMD ["gunicorn", "-b", "0.0.0.0:8000", "app:wsgi"]
""",
    "node": r"""
FROM node:20-alpine as deps
WORKDIR /app
COPY package.json yarn.lock* package-lock.json* ./
RUN \
  if [ -f yarn.lock ]; then yarn --frozen-lockfile; \
  elif [ -f package-lock.json ]; then npm ci; \
  else echo "Lockfile not found." && exit 1; \
  fi

FROM node:20-alpine as builder
WORKDIR /app
COPY --from=deps /app/node_modules ./node_modules
COPY . .
ENV NEXT_TELEMETRY_DISABLED 1
RUN npm run build

FROM node:20-alpine as runner
ENV NODE_ENV production
COPY --from=builder --chown=1001:1001 ["/app/dist", "/app/a b", "./"]
CMD node server.js
""",
    "rust": r"""
FROM rust:1-slim AS chef
RUN cargo install cargo-chef
WORKDIR app

FROM chef AS planner
COPY . .
RUN cargo chef prepare  --recipe-path recipe.json

FROM chef AS builder
COPY --from=planner /app/recipe.json recipe.json
RUN cargo chef cook --release --recipe-path recipe.json
COPY . .
RUN cargo build --release --bin app

FROM debian:bookworm-slim AS runtime
COPY --from=builder /app/target/release/app /usr/local/bin
ENTRYPOINT ["/usr/local/bin/app"]
""",
    "java": r"""
FROM maven:3-eclipse-temurin-21 AS build
COPY pom.xml /tmp/
RUN mvn -B dependency:go-offline -f /tmp/pom.xml
COPY src /tmp/src/
WORKDIR /tmp/
RUN mvn -B package

FROM eclipse-temurin:21-jre
ARG JAR_FILE=target/*.jar
ENV JAVA_OPTS="-Xms64m -Xmx256m" SPRING_PROFILES_ACTIVE=prod
VOLUME /tmp
ADD --chmod=644 ${JAR_FILE} app.jar
ENTRYPOINT exec java $JAVA_OPTS -Djava.security.egd=file:/dev/./urandom -jar /app.jar
""",
    "php": r"""
FROM php:8.3-apache
RUN set -eux; \
	apt-get update; \
	apt-get install -y --no-install-recommends \
		libfreetype6-dev \
		libpng-dev \
	; \
	docker-php-ext-configure gd --with-freetype; \
	docker-php-ext-install -j "$(nproc)" gd opcache; \
# reset apt-mark's "manual" list so that "purge --auto-remove" works
	apt-mark auto '.*' > /dev/null; \
	rm -rf /var/lib/apt/lists/*

RUN { \
		echo 'opcache.memory_consumption=128'; \
		echo 'opcache.interned_strings_buffer=8'; \
	} > /usr/local/etc/php/conf.d/opcache-recommended.ini

VOLUME ["/var/www/html", "/var/www/data"]
STOPSIGNAL SIGWINCH
COPY docker-entrypoint.sh /usr/local/bin/
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["apache2-foreground"]
""",
    "ruby": r"""
ARG RUBY_VERSION=3.3.0
FROM ruby:$RUBY_VERSION-slim as base
WORKDIR /rails
ENV RAILS_ENV="production" \
    BUNDLE_DEPLOYMENT="1" \
    BUNDLE_PATH="/usr/local/bundle" \
    BUNDLE_WITHOUT="development"

FROM base as build
COPY Gemfile Gemfile.lock ./
RUN bundle install && \
    rm -rf ~/.bundle/ "${BUNDLE_PATH}"/ruby/*/cache "${BUNDLE_PATH}"/ruby/*/bundler/gems/*/.git
COPY . .
RUN SECRET_KEY_BASE_DUMMY=1 ./bin/rails assets:precompile

FROM base
COPY --from=build /usr/local/bundle /usr/local/bundle
COPY --from=build /rails /rails
USER 1000:1000
EXPOSE 3000
CMD ["./bin/rails", "server"]
""",
    "database": r"""
FROM debian:bookworm-slim

MAINTAINER Somebody Else <somebody@example.org>

ENV GOSU_VERSION 1.17
ENV LANG en_US.utf8
ENV PG_MAJOR 16
ENV PG_VERSION 16.1-1.pgdg120+1

ENV PATH $PATH:/usr/lib/postgresql/$PG_MAJOR/bin
ENV PGDATA /var/lib/postgresql/data

RUN mkdir -p "$PGDATA" && chown -R postgres:postgres "$PGDATA" && chmod 1777 "$PGDATA"
VOLUME /var/lib/postgresql/data

COPY docker-entrypoint.sh docker-ensure-initdb.sh /usr/local/bin/
RUN ln -sT docker-ensure-initdb.sh /usr/local/bin/docker-enforce-initdb.sh
ENTRYPOINT ["docker-entrypoint.sh"]

STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["postgres"]
""",
    "proxy": r"""
FROM alpine:3.19
LABEL maintainer="Proxy Maintainers <proxy@example.org>"
ENV PROXY_VERSION=1.25.3 \
    PKG_RELEASE=1
RUN set -x \
    && addgroup -g 101 -S proxy \
    && adduser -S -D -H -u 101 -h /var/cache/proxy -s /sbin/nologin -G proxy -g proxy proxy \
    && case "$(arch)" in \
        x86_64|aarch64) \
            echo ok \
            ;; \
        *) \
            echo "unsupported" >&2; exit 1 \
            ;; \
    esac \
    && ln -sf /dev/stdout /var/log/proxy/access.log
COPY 10-listen.sh 20-envsubst.sh /docker-entrypoint.d/
EXPOSE 80 443
STOPSIGNAL SIGQUIT
CMD ["proxy", "-g", "daemon off;"]
""",
    "bootstrap": r"""
FROM scratch
ADD rootfs.tar.xz /
CMD ["bash"]
""",
    "busybox": 'FROM scratch\nADD busybox.tar.xz /\nCMD ["sh"]',
    "heredocs": r"""
# syntax=docker/dockerfile:1.4
FROM debian:bookworm AS build
RUN <<EOF
set -e
apt-get update
apt-get install -y vim   # not a comment of the Dockerfile
EOF
RUN <<EOT bash
  # nor this
  echo "$HOME" \
    more
EOT
RUN python3 <<-'PY' > /out.txt
	print("hello $USER")
	PY
COPY <<run.sh <<"config.ini" /app/
#!/bin/sh
echo $GREETING
run.sh
[main]
key = "$value"
config.ini
ADD --chown=1:1 <<EOF /etc/motd

  Welcome to ${NAME:-here}
EOF
RUN cat <<A - <<B
1
A
2
B
CMD cat <<EOF
""",
    "windows paths": "# escape=`\r\nFROM windows\r\nWORKDIR C:\\Temp\r\nRUN dir `\r\n  c:\\\r\n"
    'COPY ["a b.txt", "C:\\\\dest\\\\"]\r\nENV A=C:\\x B="`"q`""\r\nSHELL ["cmd", "/S", "/C"]\r\n',
    "onbuild": r"""
FROM python:3-onbuild-base
RUN mkdir -p /usr/src/app
WORKDIR /usr/src/app
ONBUILD COPY requirements.txt /usr/src/app/
ONBUILD RUN pip install --no-cache-dir -r requirements.txt
ONBUILD COPY --chown=app . /usr/src/app
onbuild  ENV  A=b  C=d
ONBUILD CMD [ "python", "app.py" ]
""",
    "variables": r"""
ARG A=1
ARG B=${A:-2} C="x y"
FROM ${IMAGE:-scratch} AS v
ARG A B C D=$A
ENV E=$A F=${B} G="${C}" H='$D' I=\$E J=${K:-l} K=${L:+m} L=a\ b \
    M=${N:-${O:-"p q"}} P="a\"b" Q='c"d' R=${D#1} S=${D%1} T=${D/1/2}
ENV old style with  "quotes"   and = sign
LABEL a.b.c=$A "with space"="${B} c" empty= quoted="" multi="line \
  goes on"
USER ${U:-root}:${G:-0}
EXPOSE $PORTS 80-82/tcp ${X}
VOLUME $V "/x"
WORKDIR $W/../x
STOPSIGNAL ${SIG:-TERM}
""",
    "health": r"""
FROM x
HEALTHCHECK NONE
HEALTHCHECK CMD curl -f http://localhost/ || exit 1
HEALTHCHECK --interval=5m --timeout=3s --start-period=10s --retries=1 CMD ["curl", "-f", "x"]
healthcheck   --timeout=3s   cmd   curl   x
""",
    "comments": r"""
# one
   # two

FROM x # no comment, and so too many arguments
""".replace(" # no comment, and so too many arguments", "")
    + r"""
RUN echo a \
  # comment
# comment
    b \

    c
RUN echo '# no comment'
CMD ["x"]
# end""",
    "quoting": r"""
FROM x
RUN echo "a\nb" 'c\nd' e\ f "g
RUN echo \\
RUN echo it\'s ; echo "$(date)" `date` ${x}
CMD [ "a", "b\"c", "\u00e9", "" ]
CMD [ 'a' ]
CMD ["a", "b"
CMD [
ENTRYPOINT []
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV A="a b"c'd e' B=''
ENV "A b"=c
""",
    "mounts": r"""
FROM x AS y
RUN --mount=type=bind,source=.,target=/src,rw --network=none make -C /src
RUN --mount=type=cache,id=apt,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt,sharing=locked \
    --mount=type=tmpfs,target=/tmp \
    apt-get update
RUN --mount='type=bind,"source=a,b",target=/c' --mount=target=/d true
RUN --network="host" -- echo --not-a-flag
COPY --link --from=y --chmod=0755 a b c/ /d/
ADD --link=true https://example.org/a.tar.gz /e/
""",
    "cron": r"""
FROM ubuntu:22.04
ENV DEBIAN_FRONTEND=noninteractive TZ=Etc/UTC
SHELL ["/bin/bash", "-euxo", "pipefail", "-c"]
RUN apt-get -qq update; apt-get -qq install cron tzdata <<<"y"
RUN printf '%s\n' '* * * * * root /job >> /var/log/cron.log 2>&1' > /etc/cron.d/job; \
    chmod 0644 /etc/cron.d/job; touch /var/log/cron.log; (( 1 < 2 ))
CMD cron && tail -f /var/log/cron.log
""",
    "tabs": "FROM\tx\tAS\ty\nENV\tA=1\t\tB=2\nCOPY\ta\tb\t\t/c/\nEXPOSE\t1\t2\n"
    "RUN\t\techo\ta\t\\\n\t\tb\t\nUSER\tz\t",
    "no end of line": "FROM x\nRUN a",
    "a bom": "\ufeff# escape=`\nFROM x\nRUN a `\n b",
    "letters": 'from x as Y\nrun a\nEnv a=b\ncMD ["c"]\nfrom Y\nlabel d=e\nexpose 80',
    "an instruction in pieces": "FR\\\nOM \\\nx \\\n  AS \\\n\\\n y\n"
    "RU\\\nN a\nENV \\\n A=1 \\\n B=2\n",
    "continued at the end": "FROM x\nRUN a \\\n",
    "unicode": "FROM x\nENV A=é B=日本 C='ü'\nLABEL ñ=☃\nRUN echo \u00a0 x\u2003\nCOPY ä /ö\n",
    "scripts": r"""
FROM debian
RUN echo "#!/bin/sh" > /a && \
    echo 'exec "$@"' >> /a && \
    chmod +x /a
RUN if [ "$A" = "b" ]; then \
      for i in 1 2 3; do echo $i; done; \
    # only a comment
    else \
      echo "c" | sed -e 's/c/d/' -e "s/\"/'/g"; \
    fi
RUN curl -fsSL "https://example.org/x?y=z&a=b#c" | tar -xz --strip-components=1 -C /usr
ENTRYPOINT ["/a", "-c", "echo \"$0\" 'x' \\ "]
""",
}
