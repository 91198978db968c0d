"""A store in a bucket: S3, Google Cloud Storage or Azure."""
