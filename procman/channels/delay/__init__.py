"""Messages that are sent later: a Django app of its own, ``procman.channels.delay`` in ``INSTALLED_APPS``.

A message on ``asgi.delay`` says what is to be sent, where to and when::

    Channel("asgi.delay").send({"channel": "report", "delay": 60_000, "content": {"id": 7}})  # in a minute

``manage.py rundelay`` stores such messages in the database and sends them when they are due. Several may run: each
message is sent by one of them. A message that is stored survives restarts of everything. One that waits on
``asgi.delay`` is the layer's, and goes to another server if the one that took it dies; it may then be stored twice, if
that one died just after it had stored it. One whose server dies between its send and the end of its row is sent again.

The table of 1.x was called ``channels.delay_delayedmessage``. To keep its rows, after ``migrate``::

    INSERT INTO procman_channels_delay_delayedmessage (due_date, channel_name, content)
    SELECT due_date, channel_name, content FROM "channels.delay_delayedmessage"
"""
