"""All of MongoDB: client, collections and indexes as data, one repository per room, migrations, the embedded mongod."""
