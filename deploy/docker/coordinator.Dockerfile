# The coordinator and its reducer shards. TensorFlow is not in it.
#   docker build -f deploy/docker/coordinator.Dockerfile -t lockstep-coordinator:0.1.0 .
ARG NODE_IMAGE=node:24.22.3-bookworm-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /app
# .npmrc turns the packages' own install scripts off: one of them would fetch an old TensorFlow.
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
RUN node scripts/build.mjs
# The tokenizer's package brings its binaries for every system.
RUN npm prune --omit=dev --no-audit --no-fund \
    && rm -rf node_modules/@tensorflow \
    && find node_modules/tokenizers -name '*.node' ! -name '*.linux-*-gnu.node' -delete

FROM ${NODE_IMAGE}
# A model named in the job is looked for in $LOCKSTEP_CACHE/models, then in the hub's cache below $HF_HOME.
ENV NODE_ENV=production \
    LOCKSTEP_CACHE=/var/lib/lockstep \
    HF_HOME=/var/lib/lockstep/huggingface
WORKDIR /app
COPY package.json LICENSE ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/bin ./bin
COPY --from=build /app/proto ./proto
COPY --from=build /app/dist ./dist
RUN mkdir -p /var/lib/lockstep \
    && chown 1000:1000 /var/lib/lockstep
VOLUME /var/lib/lockstep
USER 1000:1000
EXPOSE 50051 50052 50053 9464
# Only Docker reads this; in Kubernetes the probes of the manifest do the same.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=6 \
    CMD ["node", "-e", "const ask = (scheme, otherwise) => require(scheme).get(scheme + '://127.0.0.1:9464/healthz', { rejectUnauthorized: false }, (r) => process.exit(r.statusCode === 200 ? 0 : 1)).on('error', otherwise); ask('https', () => ask('http', () => process.exit(1)))"]
ENTRYPOINT ["node", "bin/lockstep"]
CMD ["coordinator", "/etc/lockstep/job.yaml"]
