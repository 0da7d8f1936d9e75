"""`goal-kernels explore`: what its pages say, whom it answers, and a person's way through them."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from chromium import PROGRAM, browsing

pytest.importorskip("pytorch_lightning")

from goal_kernels.cli import main
from goal_kernels.data import write_split
from goal_kernels.data.goalworld import generate_goalworld
from goal_kernels.evaluate.checkpoints import open_run
from goal_kernels.explore.collection import Collection
from goal_kernels.explore.pages import HITS, Pages
from goal_kernels.explore.server import LocalServer

SHORT = ("--trainer.max_epochs", "1", "--run.threads", "1", "--trainer.accelerator", "cpu")
SMALL = ("--model.embed_dim", "8", "--model.text.word_dim", "8", "--data.batch_size", "12")
LATE = ("--model.scores.kind", "late", "--model.scores.width", "8", "--model.scores.rerank", "4")


def trained(data: Path, root: Path, *options: str) -> Path:
    """A run folder of one epoch."""
    threads = torch.get_num_threads()
    given = ("--data.folder", str(data), "--run.root", str(root), "--run.name", "a<b")
    assert main(["fit", *SHORT, *SMALL, *given, *options]) == 0
    torch.set_num_threads(threads)
    return root / "a<b"


@contextmanager
def served(collection: Collection) -> Iterator[LocalServer]:
    with LocalServer(0) as server:
        server.pages = Pages(collection, "a<b")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """A split of GoalWorld whose pictures are drawn."""
    root = tmp_path_factory.mktemp("explored")
    generate_goalworld(root / "world", preset="tiny", train=24, dev=12, test=16)
    return Collection(open_run(trained(root / "world", root), {}, "cpu"))


@pytest.fixture(scope="module")
def server(world: Collection) -> Iterator[LocalServer]:
    with served(world) as server:
        yield server


def get(server: LocalServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    """Status and page; headers with _ for -."""
    connection = http.client.HTTPConnection(*server.server_address, timeout=20)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=names)
    answer = connection.getresponse()
    page = answer.read().decode()
    connection.close()
    return answer.status, page


def shown(page: str) -> list[int]:
    """Images a page shows, in order."""
    return [int(image) for image in re.findall(r'<li class="[^"]*"><a href="/image/(\d+)">', page)]


def test_a_typed_caption_finds_what_the_same_caption_of_the_split_does(
    server: LocalServer, world: Collection
) -> None:
    caption = world.split.captions[7]
    status, page = get(server, "/search?caption=" + caption.replace(" ", "+"))
    assert status == 200
    similarity = world.encoded.text_embeddings[7] @ world.encoded.image_embeddings.T
    assert shown(page) == similarity.argsort(descending=True)[:HITS].tolist()
    assert page.count("data:image/jpeg") == HITS
    own = get(server, "/caption/7")[1]
    assert shown(own)[:HITS] == shown(page)
    place = 1 + int((similarity > similarity[world.split.image_of_caption[7]]).sum())
    assert f"Its image is at place {place} of 16." in own


def test_an_image_shows_its_hardest_negatives(server: LocalServer, world: Collection) -> None:
    page = get(server, "/image/3")[1]
    similarity = world.encoded.image_embeddings @ world.encoded.text_embeddings.T  # [N, M]
    own = range(15, 20)
    others = similarity.clone()
    others[3, own] = -2
    tail = page[page.index("<h2>Its hardest negatives</h2>") :]
    found = [int(c) for c in re.findall(r'href="/caption/(\d+)"', tail)]
    assert found == others[3].argsort(descending=True)[:5].tolist()
    middle = page[page.index("hardest negatives</h2>") : page.index("<h2>Its hardest negatives")]
    others = similarity.clone()
    others[3] = -2
    wanted = [image for c in own for image in (3, int(others[:, c].argmax()))]
    assert shown(middle) == wanted


def test_pictures_of_one_thing_are_no_hardest_negatives(world: Collection) -> None:
    """Images 0 to 7 are one group, 8 to 15 the other; captions 0 to 39 are of the first."""
    grouped = copy(world)
    grouped.split = replace(world.split, group_names=["a"] * 8 + ["b"] * 8)
    page = Pages(grouped, "run").image(3)
    triplets, negatives = page.split("<h2>Its captions and ")[1].split("<h2>Its hardest negatives")
    confused = shown(triplets)[1::2]
    assert len(confused) == 5
    assert min(confused) >= 8
    found = [int(caption) for caption in re.findall(r'href="/caption/(\d+)"', negatives)]
    assert len(found) == 5
    assert min(found) >= 40
    scores = grouped.captions_of(3)
    others = scores.order[scores.order >= 40]
    assert found == others[:5].tolist()


def test_words_that_are_not_known(server: LocalServer) -> None:
    some = get(server, "/search?caption=a+circl+xyzzy")[1]
    assert "“circl” (did you mean circle?), “xyzzy”." in some
    assert len(shown(some)) == HITS
    none = get(server, "/search?caption=xyzzy")[1]
    assert "None of its words is known" in none
    assert not shown(none)
    assert "There is no word in it" in get(server, "/search?caption=%21")[1]
    long = get(server, "/search?caption=" + "a+" * 300)[1]
    assert "Only the first 256 of 300 words are read." in long
    markup = get(server, "/search?caption=%22%3E%3Cscript%3Ea")[1]
    assert "<script" not in markup
    assert get(server, "/search")[1] == get(server, "/")[1]
    assert get(server, "/?seed=2")[1] != get(server, "/")[1]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/image/16", "There is no image 16: the test split has images 0 to 15."),
        ("/caption/80", "the test split has captions 0 to 79."),
        ("/image/-1", "There is no such page."),
        ("/../../etc/passwd", "There is no such page."),
        ("/image/%2e%2e%2fworld%2fvocab.json", "There is no such page."),
        ("//evil.example/image/3", "There is no such page."),
    ],
)
def test_paths_that_are_no_pages(server: LocalServer, path: str, said: str) -> None:
    status, page = get(server, path)
    assert status == 404
    assert said in page


def test_only_this_machine_is_answered(server: LocalServer) -> None:
    port = server.server_address[1]
    assert server.server_address[0] == "127.0.0.1"
    assert get(server, "/", Host=f"localhost:{port + 1}")[0] == 200, "a forwarded port"
    refused = [
        {"Host": "evil.example"},
        {"Host": f"localhost.evil.example:{port}"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "cors"},
    ]
    for headers in refused:
        status, page = get(server, "/image/3", **headers)
        assert (status, "<img" in page) == (403, False), headers
    linked = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert get(server, "/", **linked)[0] == 200
    assert get(server, "/", "POST")[0] == 501
    assert get(server, "/", "HEAD") == (200, "")


def test_pages_cannot_be_framed_or_run_anything(server: LocalServer) -> None:
    connection = http.client.HTTPConnection(*server.server_address, timeout=20)
    connection.request("GET", "/")
    answer = connection.getresponse()
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "Access-Control-Allow-Origin" not in answer.headers
    connection.close()


def test_features_without_pictures_show_captions(tmp_path: Path, folder: Path) -> None:
    """Of a model that scores pairs, whose order of the first four is that of the scores."""
    run = trained(folder, tmp_path, *LATE, "--model.scores.ranking", "reranked")
    collection = Collection(open_run(run, {"test_split": "dev"}, "cpu"))
    page = Pages(collection, "run").caption(1)
    assert '<div class="card">image 100: a red disc</div>' in page
    assert "<img" not in page
    dual = collection.encoded.text_embeddings[1] @ collection.encoded.image_embeddings.T
    order = dual.argsort(descending=True)
    scores = collection.encoded.pairs["scores"].matrix()[:, 1]
    head = order[:4][scores[order[:4]].argsort(descending=True)]
    typed = collection.images_for(collection.split.captions[1])
    for ranking in (typed, collection.images_of(1)):
        assert ranking.order.tolist() == [*head.tolist(), *order[4:].tolist()]
        torch.testing.assert_close(ranking.scores[:4], scores[head])


def test_what_cannot_be_explored_is_said_in_a_sentence(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    def refusal(*arguments: str) -> str:
        assert main(["explore", *arguments]) == 2
        return capsys.readouterr().err

    assert "no such file or run folder" in refusal(str(tmp_path / "none"), "--port", "0")
    assert "expected 0 to 65535, got 65536" in refusal(str(tmp_path), "--port", "65536")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"--port: {port} is taken by another program" in refusal("x", "--port", port)
    data = tmp_path / "data"
    for name in ("train", "dev", "test"):
        write_split(data, name, np.ones((12, 1, 3), np.float32), ["a b"] * 12)
    run = trained(data, tmp_path, "--data.min_count", "1")
    capsys.readouterr()
    data.rename(tmp_path / "elsewhere")
    said = refusal(str(run), "--port", "0")
    assert "data.folder: expected a dataset" in said
    assert "Traceback" not in said


@pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
def test_a_person_types_a_caption_and_follows_an_image(server: LocalServer) -> None:
    with browsing() as browser:
        browser.open(server.address)
        browser.run("document.querySelector('input').value = 'a red circle'")
        browser.run("document.querySelector('button').click()")
        browser.loaded()
        assert browser.run("document.querySelector('h1').textContent") == "“a red circle”"
        drawn = "[...document.images].filter(i => i.complete && i.naturalWidth > 0).length"
        assert browser.run(drawn) == HITS
        assert browser.run("getComputedStyle(document.querySelector('.hits')).display") == "grid"
        browser.run("document.querySelector('.hits a').click()")
        browser.loaded()
        headings = "[...document.querySelectorAll('h2')].map(h => h.textContent).join()"
        assert "Its captions and their hardest negatives" in browser.run(headings)
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
