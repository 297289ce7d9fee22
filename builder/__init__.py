"""The builder: RQ workers that turn source into images and tags into digests. Never writes objects."""
