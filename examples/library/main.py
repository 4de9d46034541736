"""Serves the pipeline from Python, and calls it."""

import httpx
from pipeline import Pipeline

import graphserve

if __name__ == "__main__":
    with graphserve.serve(Pipeline, port=0, log_level="warning") as server:
        for sentence in server.call.read("It works. Does it? Yes, it does!").result():
            print(sentence.words, sentence.text)
        # Other programs call the same graph over HTTP.
        answer = httpx.post(f"{server.url}/read", json={"text": "Hello there."})
        print(answer.status_code, answer.json())
