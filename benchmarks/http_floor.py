"""The floor over HTTP: a bare FastAPI application whose routes run one hand-written statement on a psycopg connection."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from benchmarks import floor_postgresql as floor
from benchmarks.payload import dumps

LIST = (
    "SELECT * FROM sessions WHERE tenant = '' AND deleted_at IS NULL ORDER BY listed_at DESC, updated_at DESC LIMIT 20"
)
POOL = 8  # as many as ours


def application(url: str) -> FastAPI:
    """The application."""
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
        url, min_size=POOL, max_size=POOL, open=False, kwargs={"autocommit": True, "row_factory": dict_row}
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with pool:
            yield

    app = FastAPI(lifespan=lifespan)

    def read(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"metadata": json.loads(row["metadata"]), "config": json.loads(row["config"])}

    @app.get("/sessions/{session_id}")
    async def get(session_id: str) -> Any:
        async with pool.connection() as connection:
            row = await (await connection.execute(floor.GET, {"id": session_id}, prepare=True)).fetchone()
        if row is None:
            raise HTTPException(404)
        return read(row)

    @app.patch("/sessions/{session_id}/state")
    async def save(session_id: str, request: Request) -> Any:
        body = await request.json()
        values = {"id": session_id, "step": body["step"], "context": dumps(body["context"])}
        async with pool.connection() as connection:
            row = await (await connection.execute(floor.SAVE, values, prepare=True)).fetchone()
        if row is None:
            raise HTTPException(409)
        return row

    @app.get("/sessions")
    async def listed() -> Any:
        async with pool.connection() as connection:
            rows = await (await connection.execute(LIST, prepare=True)).fetchall()
        return {"items": [read(row) for row in rows]}

    return app


if __name__ == "__main__":
    _, address, number = sys.argv
    uvicorn.run(application(address), port=int(number), access_log=False, log_level="warning")
