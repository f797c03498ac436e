"""Models as objects of an S3 bucket, read with a limit on their size."""

from __future__ import annotations

import io
import time
from typing import Any

import boto3
from botocore.client import Config
from botocore.exceptions import ClientError

from fedml_gradcam_ae.contract.shown import printable
from fedml_gradcam_ae.hooks.cross_silo.decoding import Undecodable
from fedml_gradcam_ae.hooks.cross_silo.transport.intake import NotNowError
from fedml_gradcam_ae.hooks.cross_silo.transport.services import Bucket
from fedml_gradcam_ae.hooks.cross_silo.transport.undelivered import UndeliveredError

CHUNK = 2**20  # Bytes that are read at a time.
ATTEMPTS = 3  # Number of times that a request is sent before it counts as failed.
URL_SECONDS = 5 * 24 * 3600  # Time for which the URL of an object is valid, as with FedML.


class Objects:
    """Objects of one bucket.

    Args:
        bucket: the bucket and the keys to it.
        timeout: the longest wait in seconds for the next bytes of a request, and for a whole object.
    """

    def __init__(self, bucket: Bucket, timeout: float) -> None:
        self._bucket, self._timeout = bucket.BUCKET_NAME, timeout
        # As in FedML, a region beside an address of one's own has no meaning.
        address = bucket.CN_S3_ENDPOINT or None
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=address,
            region_name=None if address else bucket.CN_REGION_NAME,
            aws_access_key_id=bucket.CN_S3_AKI,
            aws_secret_access_key=bucket.CN_S3_SAK,
            config=Config(
                signature_version="s3v4",
                connect_timeout=timeout,
                read_timeout=timeout,
                retries={"total_max_attempts": ATTEMPTS},
            ),
        )

    def store(self, key: str, content: bytes) -> str:
        """Store an object.

        Args:
            key: the object's key.
            content: the bytes.

        Returns:
            A URL from which the object can be read for five days.

        Raises:
            UndeliveredError: if it could not be stored.
        """
        try:
            self._client.upload_fileobj(io.BytesIO(content), self._bucket, key)
            url: str = self._client.generate_presigned_url(
                "get_object", Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=URL_SECONDS
            )
        except Exception as error:  # of botocore, of boto3 or of urllib3
            raise UndeliveredError(f"the model could not be stored in S3: {_words(error)}") from None
        return url

    def fetch(self, key: str, most: int) -> bytes:
        """Return an object's bytes.

        Args:
            key: the object's key.
            most: the size of the largest object that is read, in bytes.

        Raises:
            Undecodable: if there is no such object, if it may not be read or if it is too large.
            NotNowError: if the service fails or takes too long, whatever the object.
        """
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            size, body = int(answer["ContentLength"]), answer["Body"]
            content = b"" if size > most else self._read(body, most)
            body.close()
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code"))
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if status == 429 or status >= 500:
                raise NotNowError(f"S3: {_words(error)}") from None
            why = "is not in the bucket" if code in ("404", "NoSuchKey") else f"cannot be read: {_words(error)}"
            raise Undecodable("no object", f"the object {printable(key, 200)} {why}") from None
        except Exception as error:  # of botocore or of urllib3
            raise NotNowError(f"S3: {_words(error)}") from None
        if max(size, len(content)) > most:
            raise Undecodable("too large", f"the object has {size} bytes, where at most {most} are taken")
        return content

    def _read(self, body: Any, most: int) -> bytes:
        """Return the bytes of an object, at most one more than `most`; some may come forever, a few at a time."""
        end, content = time.monotonic() + self._timeout, bytearray()
        while len(content) <= most and (part := body.read(min(CHUNK, most + 1 - len(content)))):
            content += part
            if time.monotonic() > end:
                raise TimeoutError(f"the object took more than {self._timeout:g} s")
        return bytes(content)


def _words(error: Exception) -> str:
    return printable(f"{type(error).__name__}: {error}", 200)
