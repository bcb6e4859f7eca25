"""Times the nodes of a training graph with TensorFlow's step statistics.

    python bench/peers/profile_graph.py DIRECTORY THREADS RUNS

DIRECTORY holds saved_model.pb, the graph as the engine loads it. Weights are random; the program is the one
that computes a group's only micro-batch. Prints {"seconds": whole runs, without statistics, "nodes": {NAME:
{"op": the kernel's name, "us": microseconds of a run}}}.
"""

import json
import os
import sys
import time
from collections import defaultdict

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy
import tensorflow
from tensorflow.core.protobuf import rewriter_config_pb2, saved_model_pb2

tf = tensorflow.compat.v1
random = numpy.random.default_rng(0)


def session(graph: tensorflow.Graph, threads: int) -> tf.Session:
    # As scripts/setup/addon/session_options.h has it: no graph optimiser.
    config = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=1)
    rewrites = config.graph_options.rewrite_options
    rewrites.disable_meta_optimizer = True
    rewrites.memory_optimization = rewriter_config_pb2.RewriterConfig.NO_MEM_OPT
    return tf.Session(graph=graph, config=config)


def values_of(feed: tensorflow.Tensor) -> numpy.ndarray:
    """Words of a weight: float32, or bfloat16 pairs. Vectors that fit in float32 words scale norms: ones."""
    (words,) = feed.shape.as_list()
    if feed.dtype == tensorflow.int32:
        values = (random.standard_normal(2 * words) * 0.02).astype(numpy.float32)
        return (values.view(numpy.uint32) >> 16).astype(numpy.uint16).view(numpy.int32)
    if words > 1 << 16:
        return (random.standard_normal(words) * 0.02).astype(numpy.float32)
    return numpy.ones(words, numpy.float32)


def main(directory: str, threads: int, runs: int) -> None:
    model = saved_model_pb2.SavedModel()
    with open(os.path.join(directory, "saved_model.pb"), "rb") as file:
        model.ParseFromString(file.read())
    graph = tensorflow.Graph()
    with graph.as_default():
        tensorflow.import_graph_def(model.meta_graphs[0].graph_def, name="")
        nodes = graph.get_operations()
        run = session(graph, threads)
        weights = [n.outputs[0] for n in nodes if n.name.startswith("feed/weight/")]
        run.run(
            [n.outputs[0] for n in nodes if n.name.startswith("fetch/load/")],
            {weight: values_of(weight) for weight in weights},
        )
        feeds = {}
        for node in nodes:
            if node.name.startswith("feed/accumulate/"):
                out = node.outputs[0]
                integers = random.integers(0, 1000, out.shape.as_list()).astype(numpy.int32)
                feeds[out] = integers if out.dtype == tensorflow.int32 else numpy.float32(1e-3)
        names = [n.name + ":0" for n in nodes if (n.name + "/").startswith("fetch/only/")]
        micro_batch = run.make_callable(names, feed_list=list(feeds), accept_options=True)
        seconds = []
        for _ in range(runs + 1):
            start = time.perf_counter()
            micro_batch(*feeds.values())
            seconds.append(time.perf_counter() - start)
        times: dict[str, list[float]] = defaultdict(list)
        ops = {}
        for _ in range(runs):
            metadata = tf.RunMetadata()
            options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
            micro_batch(*feeds.values(), options=options, run_metadata=metadata)
            for device in metadata.step_stats.dev_stats:
                for stats in device.node_stats:
                    ops[stats.node_name] = stats.timeline_label.partition(" = ")[2].partition("(")[0]
                    times[stats.node_name].append(stats.op_end_rel_micros - stats.op_start_rel_micros)
    # The median: one run in which the machine did something else moves no figure.
    found = {name: {"op": ops[name], "us": float(numpy.median(us))} for name, us in times.items()}
    print(json.dumps({"seconds": seconds[1:], "nodes": found}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
