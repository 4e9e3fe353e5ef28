# The image that `make image` makes without a container engine, for those who have one:
#   docker build --build-arg VERSION=$(git describe --tags --always) -t braid-cni.io/braid:dev .
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG VERSION=devel TARGETOS TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X github.com/braid-cni/braid/internal/buildinfo.Version=$VERSION" \
      -o /image/opt/braid/bin/ ./cmd/braid ./cmd/braidd ./cmd/braid-shim \
 && mkdir -p /image/etc /image/run /image/var /image/tmp && chmod 1777 /image/tmp \
 && ln -s /run /image/var/run \
 && echo 'root:x:0:0:root:/:/sbin/nologin' >/image/etc/passwd

FROM scratch
COPY --from=build /image /
ENV PATH=/opt/braid/bin
USER 0:0
WORKDIR /
ENTRYPOINT ["/opt/braid/bin/braidd"]
