"""The official OpenAI client against a running server: python openai_client.py URL [KEY]."""

import asyncio
import sys

import httpx
import openai

URL = sys.argv[1]
KEY = sys.argv[2] if len(sys.argv) > 2 else "none"
client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
passed = 0


def check(name, fine, shown=""):
    global passed
    if not fine:
        sys.exit(f"{name}: {shown}")
    passed += 1
    print(f"ok: {name} {shown}")


def metric(name):
    text = httpx.get(f"{URL}/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
    values = [line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(name)]
    return sum(float(value) for value in values)


model = next(iter(client.models.list())).id
ask = dict(model=model, prompt="To be, or ", max_tokens=24, seed=7, extra_body={"steps": 12})

whole = client.completions.create(**ask, logprobs=2, n=2)
check("completion", len(whole.choices) == 2 and whole.usage.completion_tokens == 48, repr(whole.choices[0].text))
account = whole.choices[0].logprobs
check("logprobs", len(account.tokens) == len(account.token_logprobs) == len(account.top_logprobs) > 0)
again = client.completions.create(**ask)
check("the same seed", again.choices[0].text == whole.choices[0].text)
gap = client.completions.create(**ask, suffix=" the question", echo=True)
check("suffix and echo", gap.choices[0].text.startswith("To be, or "), repr(gap.choices[0].text))

pieces = list(client.completions.create(**ask, stream=True, stream_options={"include_usage": True, "denoise": True}))
text = "".join(choice.text for piece in pieces for choice in piece.choices)
check("streaming", text == whole.choices[0].text and pieces[-1].usage.completion_tokens == 24)
steps = [piece for piece in pieces if "decoded" in (piece.model_extra or {})]
check("denoise events", len(steps) == 13, f"{len(steps)} of {len(pieces)} pieces")
pieces = list(client.completions.create(**ask, stream=True))
steps = [piece for piece in pieces if "decoded" in (piece.model_extra or {})]
check("no denoise events by default", not steps and "".join(piece.choices[0].text for piece in pieces) == text)

for name, wrong in [("an unknown model", {"model": "none"}), ("a wrong setting", {"temperature": 3})]:
    try:
        client.completions.create(**{**ask, **wrong})
        check(name, False, "was answered")
    except (openai.NotFoundError, openai.BadRequestError) as error:
        check(name, error.body["message"] != "", error.body["message"])

cancelled = metric('pgm_samples_total{model="%s",finish="cancelled"' % model)
long = {**ask, "max_tokens": 80, "extra_body": {"steps": 4000, "order": "remask", "remask_rate": 1.0}}
stream = client.completions.create(**long, stream=True, stream_options={"denoise": True})
next(iter(stream))
stream.close()


async def leave():
    other = openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
    try:
        await asyncio.wait_for(other.completions.create(**long), 0.5)
    except (asyncio.TimeoutError, TimeoutError):
        return True
    return False


check("leaving a request", asyncio.run(leave()))
for _ in range(100):
    found = metric('pgm_samples_total{model="%s",finish="cancelled"' % model)
    if found == cancelled + 2 and metric("pgm_samples_in_flight") == 0:
        break
    asyncio.run(asyncio.sleep(0.05))
check("both are cancelled", found == cancelled + 2, f"{found - cancelled:.0f}")
print(f"{passed} passed, 0 failed")
