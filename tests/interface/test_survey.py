"""Questions to the layer: shared, bounded, and never an error."""

import asyncio
from typing import Any

import pytest

from procman.interface import survey as module
from procman.interface.survey import Survey
from procman.layers.base import AsyncChannelLayer
from procman.layers.errors import LayerUnavailable


class Layer(AsyncChannelLayer):
    """Answers when ``answer`` says so."""

    def __init__(self) -> None:
        self.asked = 0
        self.was_asked = asyncio.Event()
        self.answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def statistics(self) -> dict[str, Any]:
        self.asked += 1
        self.was_asked.set()
        return await asyncio.shield(self.answer)


def test_an_answer_is_kept_with_its_time():
    async def check():
        now = [10.0]
        layer = Layer()
        survey = Survey(layer, lambda: now[0])
        assert survey.workers is None
        layer.answer.set_result({"workers": 3})
        assert await survey.ask()
        now[0] = 12.5
        assert (survey.workers, survey.age) == (3, 2.5)

    asyncio.run(check())


def test_those_who_ask_at_once_share_a_question():
    async def check():
        layer = Layer()
        survey = Survey(layer, lambda: 0.0)
        asking = [asyncio.ensure_future(survey.ask()) for _ in range(20)]
        await layer.was_asked.wait()
        layer.answer.set_result({"workers": 1})
        assert all(await asyncio.gather(*asking)) and layer.asked == 1

    asyncio.run(check())


def test_a_layer_that_does_not_answer_costs_the_time_limit_and_leaves_the_last_answer(monkeypatch):
    monkeypatch.setattr(module, "ASK_TIMEOUT", 0.05)

    async def check():
        survey = Survey(Layer(), lambda: 0.0)
        survey.statistics = {"workers": 2}
        assert not await survey.ask()
        assert survey.workers == 2

    asyncio.run(check())


@pytest.mark.parametrize("error", [LayerUnavailable("away"), NotImplementedError()])
def test_a_layer_that_fails_is_one_that_does_not_answer(error):
    async def check():
        layer = Layer()
        layer.answer.set_exception(error)
        assert not await Survey(layer, lambda: 0.0).ask()

    asyncio.run(check())


def test_nothing_is_asked_after_the_end():
    async def check():
        layer = Layer()
        survey = Survey(layer, lambda: 0.0)
        keeping = asyncio.ensure_future(survey.keep_asking())
        await layer.was_asked.wait()
        await survey.stop([keeping])
        assert keeping.cancelled() and layer.asked == 1
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(check())
