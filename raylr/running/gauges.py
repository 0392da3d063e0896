"""What Ray's users watch: LR, loss, accuracy, throughput, batch and workers as Ray metrics, on the node's endpoint.

They live in the run's hub, which stays while workers come and go: set by the workers, those of one that has given its
place to another would stand still beside the new ones for as long as it lives. jobs/grafana.json shows them.
"""

from raylr.events import Metrics, News, Progress

MEANINGS = {
    "raylr_train_loss": "mean training loss since the last evaluation",
    "raylr_train_accuracy": "share of right answers on the training examples between the last two evaluations, 0 to 1",
    "raylr_grad_norm": "norm of the last update's gradient before clipping",
    "raylr_headroom": "LR over the LR at which an update stops helping, on average over the last readings",
    "raylr_noise_scale": "gradient noise scale in examples, by the last reading",
    "raylr_test_loss": "mean loss on the test examples",
    "raylr_test_accuracy": "share of right answers on the test examples, 0 to 1",
    "raylr_images_per_s": "training examples per second over all workers",
    "raylr_global_batch": "examples per update over all workers",
    "raylr_world_size": "data-parallel workers at work",
    "raylr_epoch": "position in epochs",
    "raylr_peak_gpu_mib": "most memory of the GPU that tensors of the worker that writes took at once, in MiB",
}
LR = "raylr_lr"


class Gauges:
    """One run's gauges; called with the events that the run publishes."""

    def __init__(self, run: str) -> None:
        from ray.util.metrics import Gauge

        self.run = run
        self.gauges = {name: Gauge(name, description=text, tag_keys=("run",)) for name, text in MEANINGS.items()}
        self.lr = Gauge(LR, description="learning rate of the last update", tag_keys=("run", "optimizer"))

    def __call__(self, news: News) -> None:
        """Set the gauges that this news has values for."""
        if not isinstance(news, Progress | Metrics):
            return
        values = vars(news)
        for name, gauge in self.gauges.items():
            value = values.get(name.removeprefix("raylr_"))
            if value is not None:
                gauge.set(value, {"run": self.run})
        for optimizer, value in news.lr.items():
            self.lr.set(value, {"run": self.run, "optimizer": optimizer})
