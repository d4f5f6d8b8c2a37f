"""What clients of a server that they start have in common."""

import asyncio

import aiohttp


async def ready(client):
    """Waits until the server has loaded its models."""
    for _ in range(600):
        try:
            async with client.get("/health") as response:
                if response.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.1)
    raise SystemExit("the server does not become ready")
