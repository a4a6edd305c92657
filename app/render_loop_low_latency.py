"""Shows the newest frame at once, with bodies predicted to its time (`--low-latency`)."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

from app.config import Config
from app.outputs.base import Output, OutputClosed
from app.render_loop import RenderLoop, Run
from app.run_report import Progress
from pipeline.core.people import Bodies
from pipeline.gpu.transfer import own_stream
from pipeline.tracking.extrapolate import PredictionError, Predictor


def make_render_loop(
    config: Config,
    run: Run,
    outputs: list[Output],
    on_progress: Callable[[Progress], None] | None,
) -> RenderLoop:
    """Return the loop that suits the run: with low latency or without."""
    kind = LowLatencyLoop if run.low_latency else RenderLoop
    return kind(config, run, outputs, on_progress)


class LowLatencyLoop(RenderLoop):
    """Shows each frame when it is captured, with bodies extrapolated from the last fits.

    Outputs that need the picture get predicted bodies. A thread beside takes the fitted windows,
    corrects the predictions by them and writes the other outputs.
    """

    def __init__(
        self,
        config: Config,
        run: Run,
        outputs: list[Output],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        super().__init__(config, run, [each for each in outputs if each.needs_picture], on_progress)
        body = run.estimator.body
        # One small product after another: on a GPU they would take longer, and hold up the fit.
        self._predictor = Predictor(body.to("cpu"), Bodies.none(len(body.v_template)))
        # Files of bodies hold fitted ones; only pictures cannot wait for the fit.
        self._fit_outputs = [each for each in outputs if not each.needs_picture]
        self._reported = outputs
        self._fault: BaseException | None = None

    def run(self, stop: threading.Event) -> None:
        """As `RenderLoop.run`."""
        # A thread of its own, because this one must be free for the next frame.
        fits = threading.Thread(target=self._take_fits, name="take fits")
        fits.start()
        try:
            super().run(stop)
        except BaseException:
            self._runner.stop()
            raise
        finally:
            # Before the report: fits that are under way belong to it.
            fits.join()
        if isinstance(self._fault, OutputClosed):
            self.end_because("an output was closed")
        elif self._fault is not None:
            raise self._fault

    def prediction_error(self) -> PredictionError | None:
        """As `RenderLoop.prediction_error`."""
        return self._predictor.error()

    def _draw_all(self) -> None:
        # As for the fit: small products gain nothing from more threads.
        torch.set_num_threads(1)
        for frame in self._runner.newest():
            with self._runner.stats.time("predict"):
                bodies = self._predictor.predict(frame)
            self._draw_window([(frame, bodies)])

    def _take_fits(self) -> None:
        try:
            with own_stream():
                self._write_fits()
        except BaseException as error:
            # Raised in `run`: an exception in this thread would be printed and lost.
            self._fault = error
            self._runner.stop()

    def _write_fits(self) -> None:
        # Opened here: the first fitted frame may not be the first frame that was shown.
        opened = False
        estimator = self._runner.estimator
        for window in self._runner.windows():
            for frame, bodies in window:
                if not opened:
                    opened = True
                    for output in self._fit_outputs:
                        output.open(self.info(frame))
                # Before the outputs, which may wait for the disk: predictions need it at once.
                self._predictor.observe(frame, bodies, estimator.intrinsics(frame))
                for output in self._fit_outputs:
                    output.write(frame, bodies, None)
