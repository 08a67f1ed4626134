# facekit serve on a processor: docker build -t facekit . && docker run --rm -p 127.0.0.1:8000:8000 facekit
FROM python:3.12-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/facekit
ENV PATH=/opt/facekit/bin:$PATH
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml setup.py README.md LICENSE MANIFEST.in /src/
COPY src /src/src
COPY examples /src/examples
RUN pip install --no-cache-dir "/src[serve]"

FROM python:3.12-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home facekit
COPY --from=build /opt/facekit /opt/facekit
ENV PATH=/opt/facekit/bin:$PATH PYTHONUNBUFFERED=1
USER 1000
WORKDIR /home/facekit
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["facekit"]
CMD ["serve", "--host", "0.0.0.0"]
