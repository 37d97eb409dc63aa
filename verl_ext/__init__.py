"""What any verl user could reuse: a CPU platform for verl and vLLM, and killable worker processes, a chat client
(OpenAI-compatible endpoints), and a rollout client whose cancelled requests end on the server."""
