# A worker that computes on an NVIDIA GPU. CUDA's libraries come with the engine; the driver comes
# from the node, through the NVIDIA container runtime.
#   docker build -f deploy/docker/worker-cuda.Dockerfile -t lockstep-worker-cuda:0.1.0 .
ARG NODE_IMAGE=node:24.22.3-bookworm-slim

FROM ${NODE_IMAGE} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
# The engine lies at the same path in both stages: node_modules links to it.
ENV LOCKSTEP_CACHE=/opt/lockstep
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json ./
COPY bin ./bin
COPY cli ./cli
COPY coordinator ./coordinator
COPY reducer ./reducer
COPY dashboard ./dashboard
COPY lib ./lib
COPY proto ./proto
COPY run ./run
COPY scripts ./scripts
COPY worker ./worker
# Installs the engine and builds. The compiler's headers are of no use afterwards.
RUN node scripts/setup.mjs --gpu \
    && rm -rf /opt/lockstep/engine/*/tensorflow/include
# The tokenizer's package brings its binaries for every system.
RUN npm prune --omit=dev --no-audit --no-fund \
    && find node_modules/tokenizers -name '*.node' ! -name '*.linux-*-gnu.node' -delete

FROM ${NODE_IMAGE}
ENV NODE_ENV=production \
    LOCKSTEP_CACHE=/opt/lockstep \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /app
COPY package.json LICENSE ./
COPY --from=build /opt/lockstep/engine /opt/lockstep/engine
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/bin ./bin
COPY --from=build /app/proto ./proto
COPY --from=build /app/dist ./dist
USER 1000:1000
EXPOSE 9464
# Only Docker reads this; in Kubernetes the probes of the manifest do the same.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["node", "-e", "const ask = (scheme, otherwise) => require(scheme).get(scheme + '://127.0.0.1:9464/healthz', { rejectUnauthorized: false }, (r) => process.exit(r.statusCode === 200 ? 0 : 1)).on('error', otherwise); ask('https', () => ask('http', () => process.exit(1)))"]
ENTRYPOINT ["node", "bin/lockstep", "worker"]
CMD ["--help"]
